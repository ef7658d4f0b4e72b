"""FedJAX's side: one round of its federated_averaging over its jit backend.

runs/scale/peers/fedjax/bin/python benchmarks/scale/peers/fedjax_peer.py --domains 1000
"""

import warnings
from collections.abc import Callable

from moved_names import restore_moved_names
from side_by_side import (
    DISTINCT_DOMAINS,
    KERNEL,
    LEARNING_RATE,
    LENGTH,
    NUM_CHANNELS,
    NUM_CLASSES,
    NUM_ROWS,
    STRIDE,
    WEIGHT_DECAY,
    Work,
    run_peer,
)


def train(work: Work, start: Callable[[], None], stop: Callable[[], None]) -> None:
    """One round compiles and warms up, the next is timed."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    import haiku as hk
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    restore_moved_names()
    import fedjax

    def batch_norm(x: jax.Array, name: str) -> jax.Array:
        # FedJAX's models have no state, so nothing keeps running statistics.
        scale = hk.get_parameter(f"{name}_scale", x.shape[-1:], init=jnp.ones)
        offset = hk.get_parameter(f"{name}_offset", x.shape[-1:], init=jnp.zeros)
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes)
        variance = jnp.square(x).mean(axes) - jnp.square(mean)
        factor = scale * jax.lax.rsqrt(variance + 1e-5)
        return x * factor + (offset - mean * factor)

    def forward(batch: dict) -> jax.Array:
        # Windows as images of height one: XLA's two-dimensional convolution is its fast one.
        x = batch["x"].transpose(0, 2, 1)[:, None]
        padding = [(0, 0), (KERNEL // 2, KERNEL // 2)]
        for index, width in enumerate(work.widths):
            x = hk.Conv2D(width, (1, KERNEL), (1, STRIDE), padding=padding, with_bias=False)(x)
            x = jax.nn.relu(batch_norm(x, f"norm_{index}"))
        return hk.Linear(NUM_CLASSES)(x.mean((1, 2)))

    def loss(batch: dict, logits: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])

    rng = np.random.default_rng(work.seed)
    shape = (NUM_ROWS, NUM_CHANNELS, LENGTH)
    data = [
        fedjax.ClientDataset(
            {
                "x": rng.standard_normal(shape, dtype=np.float32),
                "y": rng.integers(NUM_CLASSES, size=NUM_ROWS).astype(np.int32),
            }
        )
        for _ in range(DISTINCT_DOMAINS)
    ]
    model = fedjax.create_model_from_haiku(hk.transform(forward), data[0][:1].all_examples(), loss)
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        fedjax.model_grad(model),
        # Weight decay as PyTorch's Adam has it, added to the gradient.
        fedjax.optimizers.create_optimizer_from_optax(
            optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.adam(LEARNING_RATE))
        ),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(
            batch_size=work.batch_size, num_epochs=work.epochs, seed=work.seed
        ),
    )
    fedjax.set_for_each_client_backend("jit")
    state = algorithm.init(model.init(jax.random.PRNGKey(work.seed)))

    def clients(number: int) -> list:
        keys = jax.random.split(jax.random.PRNGKey(work.seed + 1), number)
        return [(str(i), data[i % DISTINCT_DOMAINS], keys[i]) for i in range(number)]

    jax.block_until_ready(algorithm.apply(state, clients(work.warm_up_domains)))
    waiting = clients(work.domains)
    start()
    jax.block_until_ready(algorithm.apply(state, waiting))
    stop()


if __name__ == "__main__":
    run_peer(
        "fedjax",
        ("fedjax", "jax", "jaxlib", "dm-haiku", "optax", "numpy"),
        train,
        {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        },
    )
