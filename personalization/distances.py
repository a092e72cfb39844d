"""The result: every client's distance to the population, with what is needed to judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .errors import check_positions, check_whole
from .numeric import for_squares, generator_of, narrowed

_UNSAID = torch.empty(0)


@dataclass(frozen=True)
class Distances:
    """Distances of clients to a population; every field has shape ``(clients,)``.

    Floating fields have the dtype of what was measured, but squares are float32 at least: beside ``value`` in half
    precision, ``value.float() ** 2`` compares with them.

    Attributes:
        value: raw distance, in the units of the features; biased upwards for clients with few samples.
        null_mean: ``E0[value^2 | n]``, the mean *squared* distance of a client of that size without a
            difference.
        null_std: standard deviation of the squared distance under the same null.
        z: ``(value^2 - null_mean) / null_std``.
        p_value: chance of such a value without a difference.
        n: samples of the client, int64.
        calibrated: ``sqrt(max(0, value^2 - null_mean))``, 0 where z is below the gate; in the units of the
            features.
        relative: u, ``calibrated`` over its median; see :func:`personalization.calibration.relative_scale`.
        std_error: standard error of ``value`` over samples of that size, in the units of the features; inf where
            nobody has said.
        converged: whether the solver behind ``value`` converged, bool; always true for distances in closed form.
    """

    value: Tensor
    null_mean: Tensor
    null_std: Tensor
    z: Tensor
    p_value: Tensor
    n: Tensor
    calibrated: Tensor
    relative: Tensor
    std_error: Tensor = _UNSAID
    converged: Tensor = _UNSAID

    def __post_init__(self) -> None:
        if self.std_error is _UNSAID:
            object.__setattr__(self, "std_error", torch.full_like(self.value, torch.inf))
        if self.converged is _UNSAID:
            object.__setattr__(self, "converged", torch.ones_like(self.value, dtype=torch.bool))
        for f in fields(self):
            if getattr(self, f.name).shape != (len(self.value),):
                found, expected = tuple(getattr(self, f.name).shape), (len(self.value),)
                raise ValueError(
                    f"Distances.{f.name} has shape {found}; every field must have shape {expected}."
                )

    def __len__(self) -> int:
        return len(self.value)

    def select(self, index: Tensor | Sequence[int]) -> Distances:
        """The distances of some clients, unchanged: ``relative`` keeps the whole population's median as its unit.

        Args:
            index: positions or a boolean mask over the clients.

        Raises:
            ValueError: neither of these, or a position beyond the clients.
        """
        chosen = check_positions(index, len(self)).to(self.value.device)
        return Distances(**{f.name: getattr(self, f.name)[chosen] for f in fields(self)})

    def permuted(self, seed: int) -> Distances:
        """The control: the same distances dealt to other clients at random; sample counts stay where they are.

        Args:
            seed: of the permutation.

        Raises:
            ValueError: a seed that is no whole number of at least 0.
        """
        check_whole("seed", seed, "it decides who is dealt which distance", least=0)
        order = torch.randperm(len(self), generator=generator_of(seed)).to(self.n.device)
        return replace(self.select(order), n=self.n)

    def to(self, target: torch.device | str | torch.dtype) -> Distances:
        """The distances on another device or in another floating dtype.

        ``n`` stays int64 and ``converged`` bool; ``null_mean`` and ``null_std``, squares, are float32 at least.

        Raises:
            ValueError: a dtype of whole numbers.
        """
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        if not isinstance(target, torch.dtype):
            return Distances(**{name: x.to(target) for name, x in moved.items()})
        if not target.is_floating_point:
            raise ValueError(f"Distances in {target}: give a floating-point dtype, such as torch.float32.")
        whole, squares = {"n", "converged"}, {"null_mean", "null_std"}
        dtypes = {name: for_squares(target) if name in squares else target for name in moved.keys() - whole}
        return Distances(**{k: narrowed(x, dtypes[k]) if k in dtypes else x for k, x in moved.items()})
