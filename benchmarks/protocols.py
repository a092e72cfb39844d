"""What protocols cost, how near they come, what an attacker makes of them, and what noise leaves of the distances.

    python -m benchmarks.protocols [--draws 10] [--only noise]

Prints the tables of docs/personalization.md. One thread, some minutes.
"""

from __future__ import annotations

import argparse
import time

import ot
import torch
from torch import Tensor

from personalization import build_distance, distance_to_population
from personalization.protocols import (
    ClassGaussians,
    FedWaD,
    GaussianNoise,
    Protocol,
    QuantileSketches,
    SummedReference,
    TriangleWad,
)
from personalization.protocols.attacks import reconstruct, reconstruction_error
from personalization.protocols.noise import Unit

FEATURES = 24
PROTOCOLS: dict[str, Protocol] = {
    "summed reference": SummedReference(),
    "summed reference, gaussian": SummedReference(kind=build_distance("gaussian")),
    "summed reference, no masks": SummedReference(masks=None),
    "quantile sketches": QuantileSketches(),
    "class Gaussians": ClassGaussians(),
    "TriangleWad, share .5": TriangleWad(),
    "TriangleWad, share .9": TriangleWad(share=0.9),
    "FedWaD, 10 rounds": FedWaD(rounds=10),
    "FedWaD, 10 rounds, share .5": FedWaD(rounds=10, share=0.5),
}


def population(clients: int, n: int, *, shifted: int, shift: float, seed: int) -> list[Tensor]:
    """Clients of one law, neighbouring features correlated by .7, and some shifted to either side."""
    g = torch.Generator().manual_seed(1000 + seed)
    hours = torch.arange(FEATURES)
    factor = torch.linalg.cholesky(0.7 ** (hours[:, None] - hours[None]).abs().double()).float().T
    return [
        torch.randn(n, FEATURES, generator=g) @ factor + shift * (-1) ** k * (k < shifted)
        for k in range(clients)
    ]


def spread_population(clients: int, n: int, seed: int) -> list[Tensor]:
    """Clients whose means spread as widely as their samples."""
    g = torch.Generator().manual_seed(1000 + seed)
    return [
        torch.randn(n, FEATURES, generator=g) + torch.randn(FEATURES, generator=g) for _ in range(clients)
    ]


def exact(features: list[Tensor]) -> Tensor:
    clouds = [x.double().numpy() for x in features]
    return torch.tensor([[ot.emd2([], [], ot.dist(x, y)) ** 0.5 for y in clouds] for x in clouds])


def costs() -> None:
    """Bytes, time, error against W2 where the protocol claims it, and reconstruction over that of the mean."""
    features = spread_population(8, 100, seed=0)
    true = exact(features)
    mean = torch.cat(features).mean(0, keepdim=True)
    off = ~torch.eye(8, dtype=torch.bool)
    print("| protocol | KiB up per client | KiB down | rounds | time | error | reconstruction |")
    print("|---|---|---|---|---|---|---|")
    for name, protocol in PROTOCOLS.items():
        start = time.perf_counter()
        outcome = protocol.run(features)
        took = time.perf_counter() - start
        guesses = [reconstruct(protocol, outcome.transcript, k, FEATURES) for k in range(8)]
        ratio = sum(
            reconstruction_error(guess, x) / reconstruction_error(mean, x)
            for guess, x in zip(guesses, features, strict=True)
        ) / len(features)
        error = ""
        if isinstance(protocol, (FedWaD, TriangleWad)) and outcome.pairwise is not None:
            error = f"{100 * float((outcome.pairwise / true - 1)[off].mean()):+.1f} %"
        up, down = (b / 8 / 1024 for b in (outcome.transcript.bytes_up(), outcome.transcript.bytes_down()))
        print(
            f"| {name} | {up:.1f} | {down:.1f} | {outcome.transcript.rounds} | {took:.1f} s | {error} | {ratio:.3f} |"
        )


def noise(draws: int) -> None:
    """Clients found at 5 %: those of the population's law (wanted about .05), and those shifted by half a deviation.

    Mean and standard deviation over populations with noise of their own, none of which anything was chosen on.
    """
    print("| clients | epsilon | unit | kind | deviation of the mean's noise | others | shifted |")
    print("|---|---|---|---|---|---|---|")
    for clients in (100, 1000):
        for kind in ("gaussian", "sliced"):
            _row(clients, "none", "", kind, 0.0, [_plain(clients, kind, draw) for draw in range(draws)])
            for unit in ("sample", "client"):
                for epsilon in (1.0, 8.0):
                    found = [_noised(clients, kind, unit, epsilon, draw) for draw in range(draws)]
                    p_values = [p_value for _, p_value in found]
                    _row(clients, f"{epsilon:g}", unit, kind, found[0][0], p_values)


def _features(clients: int, draw: int) -> list[Tensor]:
    return population(clients, 200, shifted=clients // 10, shift=0.5, seed=5000 + 100 * draw + clients)


def _plain(clients: int, kind: str, draw: int) -> Tensor:
    return distance_to_population(_features(clients, draw), build_distance(kind), seed=draw).p_value


def _noised(clients: int, kind: str, unit: Unit, epsilon: float, draw: int) -> tuple[float, Tensor]:
    """Deviation of the noise in the population's mean, and the clients' p-values."""
    noise = GaussianNoise(epsilon, clip=1.5 * FEATURES**0.5, unit=unit, seed=draw)
    protocol = SummedReference(kind=build_distance(kind), weighting="uniform", noise=noise, seed=draw)
    distances = protocol.run(_features(clients, draw), record=False).distances
    if distances is None:
        raise RuntimeError("The summed reference found no distances.")
    return protocol.scales([200] * clients, FEATURES)["mean"] / clients, distances.p_value


def _row(clients: int, epsilon: str, unit: str, kind: str, scale: float, p_values: list[Tensor]) -> None:
    shifted = clients // 10
    parts = []
    for who in (slice(shifted, None), slice(0, shifted)):
        shares = torch.stack([(p_value[who] < 0.05).float().mean() for p_value in p_values])
        parts.append(f"{float(shares.mean()):.2f} (sd {float(shares.std()):.2f})")
    print(f"| {clients} | {epsilon} | {unit} | {kind} | {scale:.4f} | {parts[0]} | {parts[1]} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10, help="populations and noises of the last table")
    parser.add_argument("--only", choices=("costs", "noise"), help="one of the two tables")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.only != "noise":
        costs()
        print()
    if args.only != "costs":
        noise(args.draws)
