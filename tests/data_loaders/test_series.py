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


def test_breaks_and_names_go_along(make_series):
    arrays = [np.arange(10).reshape(5, 2), np.arange(6).reshape(3, 2), np.arange(8).reshape(4, 2)]
    names = {"channel_names": ("load", "hour"), "known": ("hour",)}
    series = make_series(arrays, breaks=torch.tensor([2, 4, 9, 11]), **names)
    assert [series.breaks_of(client).tolist() for client in range(3)] == [[2, 4], [], [1, 3]]
    part = series.select([2, 1, 0])
    assert part.breaks.tolist() == [1, 3, 9, 11]
    assert part.known == ("hour",)
    assert series.select([]).breaks.tolist() == series.select([1]).breaks.tolist() == []
    others = [
        make_series(arrays),
        make_series(arrays, **names),
        make_series(arrays, breaks=torch.tensor([2])),
        make_series(arrays, channel_names=("load", "hour")),
    ]
    assert len({series.fingerprint(), *(other.fingerprint() for other in others)}) == 5
    assert series.select([0, 1, 2]).fingerprint() == series.fingerprint()


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        ([3.0], r"breaks must be \(breaks,\) int64 rows, got \(1,\) torch.float32"),
        ([[3]], r"got \(1, 1\) torch.int64"),
        ([6, 3], "breaks must ascend, got 6 before 3"),
        ([3, 3], "breaks must ascend, got 3 before 3"),
        ([0], "break 0 is not inside a client"),
        ([3, 5], "break 5 is not inside a client"),
        ([8], "break 8 is not inside a client"),
        ([9], "break 9 is not inside a client"),
        ([-1, 3], "break -1 is not inside a client"),
    ],
)
def test_breaks_lie_inside_clients(make_series, breaks, message):
    with pytest.raises(DataError, match=message):
        make_series([np.arange(5), np.arange(3)], breaks=torch.tensor(breaks))


@pytest.mark.parametrize(
    ("names", "known", "message"),
    [
        (("load",), (), "2 channels need 2 channel_names, got load"),
        (("load", "load"), (), "channel_names holds 'load' 2 times"),
        (("load", "hour"), ("hours",), "known channel 'hours' is not among load, hour"),
        ((), ("hour",), "known channel 'hour' is not in channel_names, which are empty"),
        (("load", "hour"), ("hour", "hour"), "known holds 'hour' 2 times"),
        (("load", "hour"), ("load",), "the target 'load' cannot be known in advance"),
    ],
)
def test_names_of_channels_fit(make_series, names, known, message):
    with pytest.raises(DataError, match=message):
        make_series([np.zeros((5, 2))], channel_names=names, known=known)


def test_values_of_one_axis_are_refused(make_series):
    with pytest.raises(DataError, match=r"values must be \(total steps, channels\) float32, got \(5,\)"):
        dataclasses.replace(make_series([np.arange(5)]), values=torch.zeros(5))


def test_stamps_are_those_of_the_steps(make_series):
    series = make_series([np.arange(5), np.arange(4)], step_seconds=0.1, breaks=torch.tensor([7]))
    assert str(series.stamps_of(0)[3]) == "2013-01-01T00:00:00.300000"
    assert len(series.stamps_of(0, slice(2))) == 2
    with pytest.raises(
        DataError, match=r"Client 'client 1' of source 'handmade' has 2 runs, and a series records"
    ):
        series.stamps_of(1)
    whole = dataclasses.replace(series, step_seconds=3600, breaks=series.breaks[:0])
    assert whole.fingerprint() == dataclasses.replace(whole, step_seconds=3600.0).fingerprint()


def test_reasons_are_counted_by_rule():
    dropped = [Dropped("a", "min_days: 3"), Dropped("b", "zeros: all"), Dropped("c", "min_days: 4")]
    assert count_reasons(dropped) == "2 by min_days, 1 by zeros"
