import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_loaders import DataError
from data_loaders.units import UNITS, convert_unit, find_unit


@pytest.mark.parametrize(
    ("value", "source", "wanted", "step", "expected"),
    [
        (2.0, "kW", "kWh", 1800, 1.0),
        (0.5, "kWh", "W", 900, 2000.0),
        (3.6, "MJ", "kWh", None, 1.0),
        (72.0, "km/h", "m/s", None, 20.0),
        (60.0, "mph", "km/h", None, 96.56064),
        (20.0, "degC", "K", None, 293.15),
        (-40.0, "degF", "degC", None, -40.0),
        (212.0, "degF", "degC", None, 100.0),
        (90.0, "min", "h", None, 1.5),
    ],
)
def test_conversions_known_by_heart(value, source, wanted, step, expected):
    assert convert_unit(value, source, wanted, step) == pytest.approx(expected)


@given(st.sampled_from(UNITS), st.sampled_from(UNITS), st.floats(-1e6, 1e6), st.floats(0.1, 1e5))
def test_there_and_back_is_the_same_or_both_ways_are_refused(source, wanted, value, step):
    try:
        there = convert_unit(value, source, wanted, step)
    except DataError:
        with pytest.raises(DataError, match="do not convert"):
            convert_unit(value, wanted, source, step)
        return
    assert convert_unit(there, wanted, source, step) == pytest.approx(value, abs=1e-6 * max(1, abs(value)))


def test_arrays_and_tensors_stay_what_they_are():
    array = np.array([1.0, np.nan, 3.0], np.float32)
    np.testing.assert_array_equal(convert_unit(array, "kWh", "Wh"), array * 1000)
    assert convert_unit(torch.tensor([0.0]), "degC", "degF").item() == pytest.approx(32, abs=1e-4)
    assert convert_unit(array, "kW", "KW") is array


@pytest.mark.parametrize(
    ("text", "unit"), [("KWH", "kWh"), (" kwh ", "kWh"), ("°C", "degC"), ("kmh", "km/h"), ("Mwh", "MWh")]
)
def test_spellings(text, unit):
    assert find_unit(text) == unit


def test_nonsense_is_refused():
    with pytest.raises(DataError, match=r"Unknown unit 'kWhh'\. Did you mean 'kWh'\?"):
        convert_unit(1.0, "kWhh", "W")
    with pytest.raises(DataError, match="'mW' means thousandths; write 'MW'"):
        find_unit("mW")
    with pytest.raises(DataError, match="'km/h' is a unit of speed and 'kWh' one of energy"):
        convert_unit(1.0, "km/h", "kWh", 60)
    with pytest.raises(DataError, match="'kW' to 'kWh' needs the seconds of one step"):
        convert_unit(1.0, "kW", "kWh")
