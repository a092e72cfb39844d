"""What the parties of a federation by hand must refuse, since nobody else has looked at it before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import check_counts, check_finite, check_whole
from ..kind import DistanceKind
from ..numeric import wide
from ..reference import Summary, client_weights

_SLACK = 1 + 1e-9


def check_sizes(sizes: Sequence[int], features: int) -> None:
    """What a plan is made for.

    Raises:
        ValueError: fewer than two clients, a client of fewer than two samples, no feature, or no whole numbers.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes={sizes!r} are of {len(sizes)} client(s); a protocol needs at least 2.")
    for k, n in enumerate(sizes):
        check_whole(f"sizes[{k}]", n, "the samples of each client", least=2)
    check_whole("features", features, "the features of each sample")


def check_total(total: Summary, kind: DistanceKind, features: int | None = None) -> None:
    """The sum of the clients' summaries, as a client or the server has received it.

    Args:
        total: of one kind's statistics.
        kind: which that should be.
        features: those of the client; what the sum's mean has where not given.

    Raises:
        ValueError: no sum, one of other features or of another kind, NaN in it, or no weight.
    """
    if not isinstance(total, Summary):
        raise ValueError(
            f"total is of type {type(total).__name__}; give combine() of the clients' summaries."
        )
    given = {name: tuple(x.shape) for name, x in total.totals.items()}
    told = given["mean"][-1] if given.get("mean") else features
    if features is not None and told != features:
        raise ValueError(
            f"The client has {features} features, the sum {told}; all clients must describe their samples by the same "
            "features."
        )
    if told is not None:
        wanted = {name: tuple(x.shape) for name, x in kind.statistics(torch.zeros(2, told)).items()}
        if given != wanted:
            raise ValueError(
                f"The sum holds {given}, {kind} sends {wanted}; use one kind, with the same options, for all parties."
            )
    check_finite(**{f"The sum's {name}": x for name, x in total.totals.items()})
    if not (float(total.weight) > 0 and float(total.noise) > 0):
        raise ValueError(
            f"The sum has weight {float(total.weight):g} and noise {float(total.noise):g}; both are above 0."
        )


def check_answers(total: Summary, n: Tensor, answers: tuple[Tensor, Tensor], weighting: str) -> Tensor:
    """Squared distances and their variances, as clients have sent them; the sample counts, int64.

    Raises:
        ValueError: names the first client whose answer is none; clients that weigh more than the sum.
    """
    for name, x in zip(("squared", "variance"), answers, strict=True):
        if not isinstance(x, Tensor) or x.ndim != 1 or len(x) != len(answers[0]) or not len(x):
            found = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name} is {found}; give a tensor with one number per client that answered.")
    squared, variance = answers
    counts = check_counts(n, len(squared), least=2).to(squared.device)
    broken = ~(squared.isfinite() & variance.isfinite()) | (squared < 0) | (variance < 0)
    if bool(broken.any()):
        k = int(broken.nonzero()[0, 0])
        raise ValueError(
            f"Client {k} answered {float(squared[k]):g} with variance {float(variance[k]):g}, neither of which is "
            "negative or infinite; leave it out, or ask again."
        )
    weight = client_weights(wide(counts), weighting)
    for name, mine in (("weight", weight), ("noise", weight**2 / counts)):
        if float(mine.sum()) > float(getattr(total, name)) * _SLACK:
            raise ValueError(
                f"The clients have {name} {float(mine.sum()):g} by their n, the sum {float(getattr(total, name)):g}; judge "
                "them by the sum that they are part of, with the n that they sent."
            )
    return counts
