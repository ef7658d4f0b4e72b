"""Names that FedJAX 0.0.17 uses and newer JAX has elsewhere; none of FedJAX's files is touched."""


def restore_moved_names() -> None:
    """Give JAX its old names back; to be called before ``import fedjax``.

    ``jax.tree_map`` went in JAX 0.6 and is ``jax.tree_util.tree_map`` since long before.
    """
    import jax

    if not hasattr(jax, "tree_map"):
        jax.tree_map = jax.tree_util.tree_map
