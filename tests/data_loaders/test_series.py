import dataclasses

import numpy as np
import pytest
import torch

from data_loaders import DataError, Dropped
from data_loaders.series import count_reasons


def test_a_client_is_a_view_of_the_buffer(make_series):
    series = make_series([np.arange(5), np.arange(3), np.arange(4)])
    assert len(series) == 3
    assert series.of(1)[:, 0].tolist() == [0, 1, 2]
    assert series.of(1).data_ptr() == series.values[5:].data_ptr()
    assert series.lengths.tolist() == [5, 3, 4]


def test_select_keeps_order_names_attributes_and_stamps(make_series):
    series = make_series(
        [np.arange(5), np.arange(3), np.arange(4)], starts=["2013-01-01", "2013-02-01", "2013-03-01"]
    )
    part = series.select([2, 0])
    assert part.clients == ("client 2", "client 0")
    assert part.attributes["number"].tolist() == [2, 0]
    assert part.starts.astype(str).tolist() == ["2013-03-01T00:00:00", "2013-01-01T00:00:00"]
    assert torch.equal(part.of(0), series.of(2))
    assert len(series.select([])) == 0


def test_the_fingerprint_is_the_content(make_series):
    arrays = [np.arange(5), np.array([1, np.nan, 3])]
    series = make_series(arrays)
    assert series.fingerprint() == make_series(arrays).fingerprint() == series.select([0, 1]).fingerprint()
    others = [
        make_series([np.arange(5), np.array([1, np.nan, 4])]),
        make_series([np.arange(5)]),
        make_series(arrays, starts=["2013-01-01", "2013-01-02"]),
        make_series(arrays, step_seconds=1800),
        dataclasses.replace(series, unit="Wh"),
        series.select([1, 0]),
    ]
    assert len({series.fingerprint(), *(other.fingerprint() for other in others)}) == 7


def test_fields_that_contradict_each_other_are_all_named(make_series):
    series = make_series([np.arange(5), np.arange(3)])
    with pytest.raises(DataError) as caught:
        dataclasses.replace(
            series,
            values=series.values.double(),
            offsets=torch.tensor([0, 9, 8]),
            clients=("a", "a"),
            step_seconds=0,
        )
    message = str(caught.value)
    assert "values must be (total steps, channels) float32, got (8, 1) torch.float64" in message
    assert "2 clients need 3 offsets from 0 to 8" in message
    assert "names are not unique" in message
    assert "the index of attributes differs" in message
    assert "step_seconds must be positive, got 0" in message


def test_reasons_are_counted_by_rule():
    dropped = [Dropped("a", "min_days: 3"), Dropped("b", "zeros: all"), Dropped("c", "min_days: 4")]
    assert count_reasons(dropped) == "2 by min_days, 1 by zeros"
