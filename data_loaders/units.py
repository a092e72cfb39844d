"""Units of power, energy, speed, temperature, length and time, and what turns one into another."""

from typing import TypeVar, cast

from .errors import DataError, did_you_mean

Numbers = TypeVar("Numbers")

# unit -> (what it measures, factor, shift) with value * factor + shift in W, J, m/s, K, m or s
_UNITS: dict[str, tuple[str, float, float]] = {
    "W": ("power", 1.0, 0.0),
    "kW": ("power", 1e3, 0.0),
    "MW": ("power", 1e6, 0.0),
    "GW": ("power", 1e9, 0.0),
    "J": ("energy", 1.0, 0.0),
    "kJ": ("energy", 1e3, 0.0),
    "MJ": ("energy", 1e6, 0.0),
    "GJ": ("energy", 1e9, 0.0),
    "Wh": ("energy", 3.6e3, 0.0),
    "kWh": ("energy", 3.6e6, 0.0),
    "MWh": ("energy", 3.6e9, 0.0),
    "GWh": ("energy", 3.6e12, 0.0),
    "m/s": ("speed", 1.0, 0.0),
    "km/h": ("speed", 1 / 3.6, 0.0),
    "mph": ("speed", 0.44704, 0.0),
    "kn": ("speed", 1852 / 3600, 0.0),
    "K": ("temperature", 1.0, 0.0),
    "degC": ("temperature", 1.0, 273.15),
    "degF": ("temperature", 5 / 9, 273.15 - 32 * 5 / 9),
    "m": ("length", 1.0, 0.0),
    "km": ("length", 1e3, 0.0),
    "ft": ("length", 0.3048, 0.0),
    "mi": ("length", 1609.344, 0.0),
    "s": ("time", 1.0, 0.0),
    "min": ("time", 60.0, 0.0),
    "h": ("time", 3600.0, 0.0),
}
_ALIASES = {
    "°c": "degC",
    "c": "degC",
    "celsius": "degC",
    "°f": "degF",
    "f": "degF",
    "fahrenheit": "degF",
    "kelvin": "K",
    "kmh": "km/h",
    "kph": "km/h",
    "mps": "m/s",
    "watt": "W",
    "joule": "J",
    "hour": "h",
    "minute": "min",
    "second": "s",
}
UNITS = tuple(_UNITS)


def find_unit(text: str) -> str:
    """Return a unit as this package writes it: ``"KWH"`` is ``"kWh"``, ``"°C"`` is ``"degC"``.

    Raises:
        DataError: an unknown unit; a small m before W, Wh or J, which would mean thousandths.
    """
    name = text.strip()
    if name in _UNITS:
        return name
    folded = {unit.lower(): unit for unit in _UNITS} | _ALIASES
    if name[:1] == "m" and name.lower() in ("mw", "mwh", "mj", "mws"):
        raise DataError(f"Unit {text!r} means thousandths; write {'M' + name[1:]!r} for millions.")
    if name.lower() not in folded:
        raise DataError(f"Unknown unit {text!r}. {did_you_mean(name, UNITS)}")
    return folded[name.lower()]


def convert_unit(values: Numbers, from_unit: str, to_unit: str, step_seconds: float | None = None) -> Numbers:
    """Return values in another unit; NaN stays NaN.

    Power and energy turn into each other when ``step_seconds`` is given: energy is that of one step at this
    mean power, so ``convert_unit(2.0, "kW", "kWh", 1800)`` is 1.

    Args:
        values: a number, array, tensor, Series or DataFrame of floats; left as it is.
        from_unit: the unit they are in, see :data:`UNITS`.
        to_unit: the unit wanted.
        step_seconds: seconds of one step, for power from energy per step and back.

    Raises:
        DataError: an unknown unit, units of different things, or power and energy without a step.
    """
    source, wanted = find_unit(from_unit), find_unit(to_unit)
    if source == wanted:
        return values
    (what, factor, shift), (other, per, zero) = _UNITS[source], _UNITS[wanted]
    factor *= _bridge(source, what, wanted, other, step_seconds)
    scale, offset = factor / per, (shift - zero) / per
    scaled = values * scale  # type: ignore[operator]
    return cast(Numbers, scaled + offset if offset else scaled)


def _bridge(source: str, what: str, wanted: str, other: str, step_seconds: float | None) -> float:
    """Return the factor from one kind of quantity to the other; 1 within a kind."""
    if what == other:
        return 1.0
    if {what, other} != {"power", "energy"}:
        raise DataError(
            f"{source!r} is a unit of {what} and {wanted!r} one of {other}; they do not convert into each other."
        )
    if step_seconds is None or not step_seconds > 0:
        raise DataError(
            f"{source!r} to {wanted!r} needs the seconds of one step, got step_seconds={step_seconds}. Energy per "
            "step is mean power times the step."
        )
    return step_seconds if what == "power" else 1 / step_seconds
