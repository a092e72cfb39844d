"""Local training of a cohort: phases of an algorithm, run on chunks of clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from .algorithms import Phase, Rows
from .data import ClientData, Stream, batch_at
from .denormals import flushed_denormals
from .draw import integer_seed
from .errors import DivergedError, PersoflError
from .oracles import Oracle
from .plan import Plan


@dataclass(frozen=True)
class Workbench:
    """What local training needs besides rows: the data, the oracle, and how to cut the work.

    Attributes:
        data: training examples are drawn from it.
        oracle: losses and gradients.
        batch_size: examples a step.
        chunk: clients trained at once; about what fits the processor's cache.
        names: of the clients, for error messages.
    """

    data: ClientData
    oracle: Oracle
    batch_size: int
    chunk: int
    names: tuple[str, ...]


def train_phase(
    bench: Workbench, phase: Phase, clients: Tensor, rows: Rows, plan: Plan, stream: Stream
) -> Tensor:
    """Run one phase for a cohort, in place.

    Clients are sorted by their number of steps and trained in chunks, so clients of like work share a chunk; within
    one, those still at work are always a prefix, and no step is spent on padding.

    Args:
        bench: data, oracle and sizes.
        phase: what a step does.
        clients: ``(cohort,)`` indices into the population.
        rows: the cohort's matrices, changed in place; one row per client in each.
        plan: the cohort's plan.
        stream: where batches come from.

    Returns:
        Mean training loss of each client over its steps, ``(cohort,)``; NaN for clients without a step.

    Raises:
        DivergedError: names the first client whose loss or weights are not finite.
        PersoflError: a device's memory does not hold a chunk.
    """
    steps = getattr(plan, phase.steps).squeeze(1).to(torch.int64)
    order = torch.argsort(steps, descending=True, stable=True)
    in_order = bool((steps[:-1] >= steps[1:]).all())
    losses = torch.full((len(clients),), torch.nan, device=plan.lr.device)
    for start in range(0, len(clients), bench.chunk):
        # Clients that are in order already are trained where they lie; others in a copy.
        chunk = slice(start, start + bench.chunk) if in_order else order[start : start + bench.chunk]
        part = {name: _take(matrix, chunk) for name, matrix in rows.items()}
        with flushed_denormals(), _hint_at_chunk(bench.chunk):
            losses[chunk] = _train_chunk(bench, phase, clients[chunk], part, plan.take(chunk), stream)
        if not in_order:
            for name, matrix in part.items():
                if name != "anchor":
                    rows[name][chunk] = matrix
    _refuse_broken(bench, phase, clients, rows, plan, stream.round, losses)
    return losses


@contextmanager
def _hint_at_chunk(chunk: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise PersoflError(
            f"The device has no memory to train {chunk} clients at once ({str(error).splitlines()[0]}). Give a smaller "
            "RoundConfig(chunk=...), or training.chunk. The state before is kept."
        ) from error


def _refuse_broken(
    bench: Workbench, phase: Phase, clients: Tensor, rows: Rows, plan: Plan, round_: int, losses: Tensor
) -> None:
    """Raise for the first client that trained into NaN or infinity."""
    # A loss is the one before a step: what the last step did shows in the weights only.
    sums = [matrix.sum(1) for name, matrix in rows.items() if name != "anchor"]
    finite = torch.stack([losses, *sums]).isfinite().all(0).cpu()
    broken = (getattr(plan, phase.steps).squeeze(1) >= 1) & ~finite
    if broken.any():
        first = int(broken.nonzero()[0])
        hint = f"Phase {phase.name!r}, lr={float(plan.lr[first]):g}: lower the learning rate. The state before is kept."
        raise DivergedError(bench.names[int(clients[first])], round_, float(losses[first]), hint)


def _take(matrix: Tensor, chunk: slice | Tensor) -> Tensor:
    """Rows of a chunk; one row that stands for all stays one row in memory."""
    if matrix.stride(0) == 0 and isinstance(chunk, Tensor):
        return matrix[: len(chunk)]
    return matrix[chunk]


def _train_chunk(
    bench: Workbench, phase: Phase, clients: Tensor, rows: Rows, plan: Plan, stream: Stream
) -> Tensor:
    """Train clients sorted by descending steps."""
    steps = getattr(plan, phase.steps).squeeze(1).to(torch.int64)
    device = plan.lr.device
    total = torch.zeros(len(clients), device=device)
    most, size = int(steps[0]), bench.batch_size
    if most == 0:
        return torch.full_like(total, torch.nan)
    positions = stream.positions(bench.data, clients, most * size)
    active = _active_per_step(steps, most)
    # Dropout's noise: a function of the round and the chunk's first client.
    noise = integer_seed(stream.seed, stream.round, f"{stream.purpose}:{int(clients[0])}")
    with forked_noise(device, noise):
        previous = -1
        with bench.oracle.holding(rows[phase.target]) if phase.target else nullcontext():
            for step, count in enumerate(active):
                if count != previous:
                    live = {name: matrix[:count] for name, matrix in rows.items()}
                    live_plan, previous = plan.take(slice(0, count)), count
                batch = batch_at(bench.data, positions[:count, step * size : (step + 1) * size])
                total[:count] += phase.step(live, batch, bench.oracle, live_plan)
    mean: Tensor = total / steps.to(device)
    return mean


@contextmanager
def forked_noise(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the generators of host and device, and leave them as they were; another device's are not touched."""
    gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if gpu else []):
        torch.default_generator.manual_seed(seed)
        if gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _active_per_step(steps: Tensor, most: int) -> list[int]:
    """How many of the clients, sorted by descending steps, still work at each step."""
    return [int(count) for count in (steps.unsqueeze(0) > torch.arange(most).unsqueeze(1)).sum(1)]
