"""FedJAX's side: the clients' part of its federated averaging over its jit backend.

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
    ComputeCost,
    run_peer,
)


def train(work: ComputeCost, start: Callable[[], None], stop: Callable[[], None]) -> None:
    """A few domains compile and warm up, then the rest are timed."""
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
        x = batch["x"].transpose(0, 2, 1)  # Haiku's own order, (batch, time, channels)
        padding = (KERNEL // 2, KERNEL // 2)
        for index, width in enumerate(work.widths):
            x = hk.Conv1D(width, KERNEL, STRIDE, padding=padding, with_bias=False)(x)
            x = jax.nn.relu(batch_norm(x, f"norm_{index}"))
        return hk.Linear(NUM_CLASSES)(x.mean(1))

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
    train_each = fedjax.algorithms.fed_avg.create_train_for_each_client(
        fedjax.model_grad(model),
        # Weight decay as PyTorch's Adam has it, added to the gradient.
        fedjax.optimizers.create_optimizer_from_optax(
            optax.chain(optax.add_decayed_weights(WEIGHT_DECAY), optax.adam(LEARNING_RATE))
        ),
    )
    batching = fedjax.ShuffleRepeatBatchHParams(
        batch_size=work.batch_size, num_epochs=work.epochs, seed=work.seed
    )
    parameters = model.init(jax.random.PRNGKey(work.seed))

    def train_domains(number: int) -> None:
        keys = jax.random.split(jax.random.PRNGKey(work.seed + 1), number)
        clients = (
            (str(i), data[i % DISTINCT_DOMAINS].shuffle_repeat_batch(batching), keys[i])
            for i in range(number)
        )
        # Waiting for each domain takes a tenth less CPU time than running ahead of the pool.
        for _, update in train_each(parameters, clients):
            jax.block_until_ready(update)

    train_domains(work.warm_up_domains)
    start()
    train_domains(work.domains)
    stop()


if __name__ == "__main__":
    run_peer(
        "fedjax",
        ("fedjax", "jax", "jaxlib", "dm-haiku", "optax", "numpy"),
        train,
        {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
    )
