"""Feature shift: clients that see the same things through another gain, offset, noise or clock."""

from dataclasses import dataclass

import numpy as np

from ..errors import raise_if_any
from ..runs import Floats
from ..series import ClientSeries
from .base import Population, check, generator, register_partition, say
from .shape import changed, needs_series, runs, spreads

_ANY = 2.0**63


@register_partition("feature_shift")
@dataclass(frozen=True)
class FeatureShift:
    """Every client's values through a gain, an offset, a noise and a rotation of its own.

    Channels known in advance (calendar, weather) stay. What was drawn is in the attributes ``shift_gain``,
    ``shift_offset``, ``shift_noise`` (both in standard deviations of the channel) and ``shift_hours``. Scaling by a
    client's own moments takes gain and offset out again; scale samples by the population's to keep them.

    Args:
        gain: standard deviation of the logarithm of the gain.
        offset: standard deviation of the offset, in standard deviations of the channel over all clients.
        noise: largest standard deviation of added noise, in the same unit; a client's is uniform up to it.
        rotation: largest shift of a series against the clock, hours; a client's is uniform up to it, either way. Values
            that leave a run are gone, and what enters it at the other end is missing. Series only.
        seed: of the draws, together with the client's name.

    Raises:
        DataError: options out of range or all zero; when called, rotation of samples.
    """

    gain: float = 0.0
    offset: float = 0.0
    noise: float = 0.0
    rotation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = check(self, gain=(0, 20), offset=(0, _ANY), noise=(0, _ANY), rotation=(0, _ANY))
        if not problems and not any((self.gain, self.offset, self.noise, self.rotation)):
            problems = ["feature_shift changes nothing; set gain, offset, noise or rotation above 0."]
        raise_if_any(problems)

    def __call__(self, population: Population) -> Population:
        """Return the population with shifted values."""
        if self.rotation:
            needs_series(population, "rotation")
        drawn = np.stack([self._draw(name) for name in population.clients])
        spread = spreads(population)

        def shift(client: int, values: Floats) -> Floats:
            gain, offset, noise, hours = drawn[client]
            if isinstance(population, ClientSeries) and self.rotation:
                values = _rotated(population, client, values, hours)
            values = values * np.float32(gain) + np.float32(offset) * spread
            if noise:
                rng = generator(self.seed, "feature noise", population.clients[client])
                values += rng.standard_normal(values.shape, np.float32) * (np.float32(noise) * spread)
            return values

        names = ("shift_gain", "shift_offset", "shift_noise", "shift_hours")
        return say(
            changed(population, shift),
            f"partition: feature_shift(gain {self.gain:g}, offset {self.offset:g}, noise {self.noise:g}, rotation "
            f"{self.rotation:g} h), seed {self.seed}",
            **dict(zip(names, drawn.T, strict=True)),
        )

    def _draw(self, client: str) -> Floats:
        """Return gain, offset, noise and hours of one client."""
        rng = generator(self.seed, "feature_shift", client)
        gain, offset = rng.standard_normal(2)
        noise, hours = rng.random(2)
        drawn = [
            np.exp(self.gain * gain),
            self.offset * offset,
            self.noise * noise,
            self.rotation * (2 * hours - 1),
        ]
        return np.array(drawn)


def _rotated(series: ClientSeries, client: int, values: Floats, hours: float) -> Floats:
    """Return ``(steps, own)`` moved later by ``hours``, run by run, missing where nothing moved to.

    A circle would bring the end of a run, which is to be tested on, to its start, which is trained on.
    """
    steps = round(hours * 3600 / series.step_seconds)
    moved = np.full_like(values, np.nan)
    for run in runs(series, client):
        length = run.stop - run.start
        steps_here = max(-length, min(length, steps))
        later, earlier = max(0, steps_here), max(0, -steps_here)
        moved[run.start + later : run.stop - earlier] = values[run.start + earlier : run.stop - later]
    return moved
