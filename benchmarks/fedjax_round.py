r"""The perceptron's round in JAX's fedjax, jitted: what docs/performance.md compares with.

    python -m venv FOLDER && FOLDER/bin/pip install fedjax==0.0.17 jax==0.4.25 jaxlib==0.4.25 "numpy<2" "scipy<1.13" \
        "dm-haiku<0.0.13" "optax<0.2.3" "chex<0.1.87"       # the last JAX that this fedjax runs with
    FOLDER/bin/python benchmarks/fedjax_round.py            # then: python -m benchmarks.run --work mlp

One thread; FedAvg over 100 clients, 20 steps of batches of 32, a perceptron 168-64-24, mean squared error. Prints seconds
of a round, best and median of some after the first, which compiles. fedjax is no part of our environment, but of its own.
"""

import argparse
import os
import statistics
import time
from importlib.metadata import version

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])  # XLA has more pools than its flags name

import fedjax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

CLIENTS, STEPS, BATCH, LOOKBACK, HIDDEN, HORIZON, LR = 100, 20, 32, 168, 64, 24, 0.05


def start(rng: np.random.Generator) -> dict[str, jax.Array]:
    """A perceptron's weights."""
    sizes = {"in": (LOOKBACK, HIDDEN), "out": (HIDDEN, HORIZON)}
    weights = {
        name: jnp.asarray(rng.normal(0, n**-0.5, (n, m)), jnp.float32) for name, (n, m) in sizes.items()
    }
    return {**weights, "in_bias": jnp.zeros(HIDDEN), "out_bias": jnp.zeros(HORIZON)}


def loss(params: dict[str, jax.Array], batch: dict[str, jax.Array], rng: jax.Array) -> jax.Array:
    """Squared errors, one an example."""
    hidden = jax.nn.relu(batch["x"] @ params["in"] + params["in_bias"])
    return ((hidden @ params["out"] + params["out_bias"] - batch["y"]) ** 2).mean(-1)


def main() -> None:
    """Time rounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--windows", type=int, default=1000, help="of a client")
    args = parser.parse_args()
    rng = np.random.default_rng(0)

    def examples(width: int) -> np.ndarray:
        return rng.normal(size=(args.windows, width)).astype(np.float32)

    clients = [
        (
            str(k),
            fedjax.ClientDataset({"x": examples(LOOKBACK), "y": examples(HORIZON)}),
            jax.random.PRNGKey(k),
        )
        for k in range(CLIENTS)
    ]
    algorithm = fedjax.algorithms.fed_avg.federated_averaging(
        grad_fn=fedjax.grad(loss),
        client_optimizer=fedjax.optimizers.sgd(LR),
        server_optimizer=fedjax.optimizers.sgd(1.0),
        client_batch_hparams=fedjax.ShuffleRepeatBatchHParams(
            batch_size=BATCH, num_steps=STEPS, num_epochs=None
        ),
    )
    with fedjax.for_each_client_backend("jit"):
        state, times = algorithm.init(start(rng)), []
        for _ in range(args.rounds + 1):
            begin = time.perf_counter()
            state, _ = algorithm.apply(state, clients)
            jax.block_until_ready(state.params)
            times.append(time.perf_counter() - begin)
    print(f"fedjax {version('fedjax')}, jax {jax.__version__}: first {times[0]:.3f} s, ", end="")
    print(f"then best {min(times[1:]):.3f} s, median {statistics.median(times[1:]):.3f} s a round")


if __name__ == "__main__":
    main()
