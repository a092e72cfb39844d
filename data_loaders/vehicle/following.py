"""Car following by the Intelligent Driver Model with a reaction delay, for many cars at once.

References:
    Treiber, Hennecke, Helbing, Congested traffic states in empirical observations and microscopic simulations,
    Physical Review E 62(2), 2000.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from ..dial import Array, Law

STEP = 0.1  # s
_EXPONENT = 4
_HARDEST = 8.0  # m/s2, what tyres give
_CLOSEST = 0.5  # m, where the model would let cars touch
_LEADER_LAG, _LEADER_BRAKE, _LEADER_GAS = 2.0, 2.0, 1.2  # s, m/s2, m/s2
_CALM = 0.95  # of the leader's and the driver's jitter, from step to step
_FLOOR = 0.02


@dataclass(frozen=True)
class Driver:
    """Parameters of the model for one car.

    Args:
        headway: s, the time gap it keeps.
        acceleration: m/s2, at most.
        deceleration: m/s2, comfortable.
        distance: m, kept when standing.
        desired_speed: m/s, on a free road.
        delay: s, until it reacts.
        jitter: m/s2, standard deviation of what it does beside the model.
    """

    headway: float = 1.4
    acceleration: float = 1.2
    deceleration: float = 1.8
    distance: float = 2.5
    desired_speed: float = 25.0
    delay: float = 0.4
    jitter: float = 0.15


NORMAL = Driver()
STYLES = {
    "normal": NORMAL,
    "calm": replace(
        NORMAL, headway=2.2, acceleration=0.8, deceleration=1.2, distance=4.0, delay=0.5, desired_speed=22
    ),
    "brisk": replace(
        NORMAL, headway=0.9, acceleration=2.0, deceleration=2.6, distance=1.8, delay=0.2, desired_speed=30
    ),
    "absent": replace(NORMAL, headway=1.9, delay=0.8, jitter=0.35, deceleration=2.4),
}
NAMES = tuple(field.name for field in fields(Driver))


def _row(driver: Driver) -> Array:
    return np.array([getattr(driver, name) for name in NAMES], np.float64)


LAW = Law(
    names=NAMES,
    base=_row(NORMAL),
    archetypes={name: _row(driver) for name, driver in STYLES.items()},
    spread=np.full(len(NAMES), 0.15),
    additive=np.zeros(len(NAMES), np.bool_),
    upper=np.full(len(NAMES), np.inf),
)


def leader_speeds(wanted: Array, noise: Array) -> Array:
    """Return the speeds of cars that make for the speeds wanted, ``(steps, cars)`` m/s.

    Args:
        wanted: ``(steps, cars)`` m/s.
        noise: ``(steps, cars)`` standard normal.
    """
    speed = np.empty_like(wanted)
    speed[0], jitter = wanted[0], np.zeros(wanted.shape[1])
    for step in range(1, len(wanted)):
        jitter = _CALM * jitter + np.sqrt(1 - _CALM**2) * 0.1 * noise[step]
        pull = np.clip((wanted[step] - speed[step - 1]) / _LEADER_LAG + jitter, -_LEADER_BRAKE, _LEADER_GAS)
        speed[step] = np.maximum(speed[step - 1] + STEP * pull, 0)
    return speed


def follow_leaders(parameters: Array, leader: Array, noise: Array) -> tuple[Array, Array]:
    """Return speeds m/s and gaps m of cars behind leaders, ``(steps, cars)`` each.

    Each starts at its leader's speed and its own equilibrium gap. What a car reacts to is ``delay`` old, between steps on
    the straight line.

    Args:
        parameters: ``(cars, parameters)`` in the order of ``NAMES``.
        leader: ``(steps, cars)`` m/s.
        noise: ``(steps, cars)`` standard normal.
    """
    headway, gas, brake, distance, desired, delay, shake = np.maximum(parameters.T, _FLOOR)
    speed, gap = np.empty_like(leader), np.empty_like(leader)
    speed[0] = np.minimum(leader[0], 0.9 * desired)
    gap[0] = equilibrium_gap(parameters, speed[0])
    cars, jitter = np.arange(leader.shape[1]), np.zeros(leader.shape[1])
    whole, part = np.divmod(delay / STEP, 1)
    for step in range(1, len(leader)):
        late = np.maximum(step - 1 - whole.astype(np.int64), 0)
        later = np.maximum(late - 1, 0)
        seen = [(1 - part) * past[late, cars] + part * past[later, cars] for past in (speed, gap, leader)]
        wish = distance + np.maximum(
            0, seen[0] * headway + seen[0] * (seen[0] - seen[2]) / (2 * np.sqrt(gas * brake))
        )
        jitter = _CALM * jitter + np.sqrt(1 - _CALM**2) * shake * noise[step]
        pull = (
            gas * (1 - (seen[0] / desired) ** _EXPONENT - (wish / np.maximum(seen[1], _CLOSEST)) ** 2)
            + jitter
        )
        speed[step] = np.maximum(speed[step - 1] + STEP * np.clip(pull, -_HARDEST, None), 0)
        gap[step] = np.maximum(gap[step - 1] + STEP * (leader[step] - speed[step]), _CLOSEST)
    return speed, gap


def equilibrium_gap(parameters: Array, speed: Array) -> Array:
    """Return the gap at which cars keep a constant speed below the one they desire, m, ``(cars,)``."""
    headway, distance, desired = (
        parameters[:, NAMES.index(name)] for name in ("headway", "distance", "desired_speed")
    )
    return np.asarray((distance + speed * headway) / np.sqrt(1 - (speed / desired) ** _EXPONENT))
