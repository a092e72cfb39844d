"""Charging sessions: the official CSV, what spreadsheets make of it, and what a sample may know."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_loaders import ClientSamples, ClientSeries, DataError, WindowSpec, build_source, make_windows
from data_loaders.vehicle.ev_files import HEADER, OFFICIAL
from data_loaders.vehicle.session_features import LONGEST, channel_names
from data_loaders.vehicle.sessions import covered

COLUMNS = (
    "session_ID;Garage_ID;User_ID;User_type;Shared_ID;Start_plugin;Start_plugin_hour;End_plugout;End_plugout_hour;"
    "El_kWh;Duration_hours;month_plugin;weekdays_plugin"
)


def sessions(users=("G1-1", "G1-2"), each=25):
    """Rows of the official table as dictionaries, sorted by plug-in."""
    random, rows = np.random.default_rng(0), []
    for number, user in enumerate(users):
        begin = pd.Timestamp("2019-01-07 17:00") + pd.Timedelta(minutes=7 * number)
        for _ in range(each):
            hours = float(random.uniform(1, 12))
            end = begin + pd.Timedelta(hours=hours)
            rows.append(
                {
                    "user": user,
                    "begin": begin,
                    "end": end,
                    "kwh": float(random.uniform(1, 20)),
                    "hours": hours,
                }
            )
            begin = end.ceil("min") + pd.Timedelta(minutes=int(random.integers(60, 1500)))
    return sorted(rows, key=lambda row: row["begin"])


def comma(value):
    return "NA" if value is None else f"{value:.9g}".replace(".", ",")


def official(rows):
    """The file's text, CRLF and all."""
    lines = [COLUMNS]
    for number, row in enumerate(rows, 1):
        end = row["end"].strftime("%d.%m.%Y %H:%M") if row["end"] is not None else "NA"
        begin, kind = row["begin"], row.get("kind", "Private")
        lines.append(
            f"{row.get('id', number)};{row['user'].split('-')[0]};{row['user']};{kind};NA;"
            f"{begin.strftime('%d.%m.%Y %H:%M')};{begin.hour};{end};NA;{comma(row['kwh'])};{comma(row['hours'])};Jan;Monday"
        )
    return "\r\n".join([*lines, ""])


@pytest.fixture
def source(tmp_path):
    """Write rows, or text as it is, and return the source that reads them."""

    def make(rows, **options):
        text = rows if isinstance(rows, str) else official(rows)
        (tmp_path / OFFICIAL).write_bytes(text.encode())
        return build_source("ev_norway", root=str(tmp_path), **options)

    return make


def named(samples):
    return dict(zip(samples.channel_names, samples.inputs[:, 0].T, strict=True))


# --- what is read ------------------------------------------------------------------------------------------


def test_one_session_is_one_sample_in_order_of_time(source):
    rows = sessions()
    samples = source(rows, task="energy").load()
    assert isinstance(samples, ClientSamples)
    assert samples.clients == ("G1-1", "G1-2")
    mine = [row for row in rows if row["user"] == "G1-2"]
    np.testing.assert_allclose(samples.targets[samples.rows(1), 0], [row["kwh"] for row in mine], rtol=1e-6)
    assert samples.times[samples.rows(1)].tolist() == [int(row["begin"].timestamp()) for row in mine]
    assert (samples.unit, samples.target_names) == ("kWh", ("energy",))
    assert samples.attributes.to_dict("list") == {
        "garage": ["G1", "G1"],
        "user_type": ["Private", "Private"],
        "n_sessions": [25, 25],
    }


def test_duration_and_its_logarithm(source):
    rows = sessions()
    plain, log = (source(rows, task="duration", log=log).load() for log in (False, True))
    torch.testing.assert_close(log.targets, plain.targets.log1p())
    assert (plain.unit, log.unit) == ("h", "log(1 + h)")


def test_a_missing_plugout_stays_for_energy_and_goes_for_duration(source):
    rows = sessions()
    rows[3] |= {"end": None, "hours": None}
    assert len(source(rows, task="energy").load().inputs) == 50
    duration = source(rows, task="duration").load()
    assert len(duration.inputs) == 49
    assert "1 of 50 sessions without a duration are no samples" in duration.rules


def test_users_with_few_sessions_are_dropped_with_the_reason(source):
    rows = sessions() + sessions(("G2-1",), each=19)
    series = source([row | {"id": number} for number, row in enumerate(rows)]).load()
    assert series.clients == ("G1-1", "G1-2")
    assert [(item.client, item.reason) for item in series.dropped] == [
        ("G2-1", "min_sessions: 19 sessions, 20 asked for")
    ]


def test_nobody_left_is_an_error(source):
    with pytest.raises(DataError, match="No user of source 'ev_norway' is left: 2 by min_sessions"):
        source(sessions(), min_sessions=26).load()


def test_duplicates_follow_the_stated_rule(source):
    rows = sessions()
    rows.insert(5, dict(rows[4]))
    kept, dropped = (source(rows, task="energy", duplicates=rule).load() for rule in ("keep", "drop"))
    assert (len(kept.inputs), len(dropped.inputs)) == (51, 50)
    assert "1 sessions repeat another's user, plug-in and energy: left out" in dropped.rules


def test_absurd_durations_are_missing_and_counted(source):
    rows = sessions()
    rows[2]["hours"] = 0.0
    rows[4] |= {"end": rows[4]["begin"] + pd.Timedelta(days=20), "hours": 480.0}
    samples = source(rows, task="duration").load()
    assert len(samples.inputs) == 48
    assert any("of 2 more it is not in (0, 336] h" in rule for rule in samples.rules)


def test_rows_from_several_garages_and_kinds_keep_the_first_garage_and_both_kinds(source):
    rows = sessions()
    rows[-1]["kind"] = "Shared"
    attributes = source(rows, task="energy").load().attributes
    assert sorted(attributes["user_type"]) == ["Private", "Private/Shared"]


# --- what a sample may know --------------------------------------------------------------------------------


def test_the_past_is_shifted_and_what_is_missing_is_flagged(source):
    rows = [row for row in sessions() if row["user"] == "G1-1"]
    values = named(source(rows, task="energy", previous=2).load())
    assert tuple(values) == channel_names(2)
    energy = np.array([row["kwh"] for row in rows])
    np.testing.assert_allclose(values["energy_1"][1:], energy[:-1], rtol=1e-6)
    np.testing.assert_allclose(values["energy_2"][2:], energy[:-2], rtol=1e-6)
    assert values["missing_1"].tolist() == [1] + [0] * 24
    assert values["missing_2"].tolist() == [1, 1] + [0] * 23
    assert values["first_session"].tolist() == [1] + [0] * 24
    since = [(b["begin"] - a["end"].floor("min")).total_seconds() / 3600 for a, b in itertools.pairwise(rows)]
    np.testing.assert_allclose(values["hours_since_plugout"][1:], since, rtol=1e-5)
    assert values["hours_since_plugout"][0] == LONGEST
    np.testing.assert_allclose(values["gap_1"][2:], since[:-1], rtol=1e-5)


def test_the_clock_is_on_circles(source):
    rows = sessions()
    samples = source(rows, task="energy").load()
    values = named(samples)
    for name in ("hour", "weekday", "month"):
        torch.testing.assert_close(values[f"{name}_sin"] ** 2 + values[f"{name}_cos"] ** 2, torch.ones(50))
    first = min(row["begin"] for row in rows)  # Monday, 17:00
    row = samples.times.argmin()
    assert first.day_of_week == 0
    assert values["weekday_cos"][row] == 1
    assert values["hour_sin"][row] == pytest.approx(np.sin(2 * np.pi * 17 / 24))


@given(st.integers(0, 24), st.floats(0.5, 500), st.booleans())
@settings(max_examples=25, deadline=None)
def test_no_sample_knows_the_future(tmp_path_factory, which, kwh, lose_plugout):
    """Changing a session's outcome changes no feature of samples that plug in before it ended, its own included."""
    rows = [row for row in sessions() if row["user"] == "G1-1"]
    rows[which]["end"] += pd.Timedelta(days=1)  # overlaps with later ones, as shared users' do
    rows[which]["hours"] += 24
    changed = [dict(row) for row in rows]
    changed[which]["kwh"] = kwh
    if lose_plugout:
        changed[which] |= {"end": None, "hours": None}
    loaded = []
    for table in (rows, changed):
        folder = tmp_path_factory.mktemp("ev")
        (folder / OFFICIAL).write_bytes(official(table).encode())
        loaded.append(build_source("ev_norway", root=str(folder), task="energy").load())
    before_end = loaded[0].times < rows[which]["end"].floor("min").timestamp()
    assert before_end.any()
    assert torch.equal(loaded[0].inputs[before_end], loaded[1].inputs[before_end])


# --- hourly energy -----------------------------------------------------------------------------------------


def test_hourly_energy_is_delivered_from_plug_in_at_the_charging_power(source):
    begin = pd.Timestamp("2019-01-07 17:30")
    row = {"user": "G1-1", "begin": begin, "end": begin + pd.Timedelta(hours=10), "kwh": 9.0, "hours": 10.0}
    series = source([row], min_sessions=1, plugged_in=True).load()
    assert isinstance(series, ClientSeries)
    assert (series.starts[0], series.step_seconds) == (np.datetime64("2019-01-07"), 3600)
    assert series.channel_names == ("energy", "plugged_in")
    energy, plugged = series.of(0).T
    assert len(energy) == 48  # it ends on the next day
    np.testing.assert_allclose(energy[17:20], [3.6, 5.4, 0], atol=1e-6)
    np.testing.assert_allclose(plugged[16:29], [0, 0.5, *[1] * 9, 0.5, 0], atol=1e-6)


@given(st.lists(st.tuples(st.floats(0, 40), st.floats(0, 30)), min_size=1, max_size=20))
def test_what_hours_cover_adds_up_to_the_intervals(intervals):
    begin, length = np.array(intervals).T
    hours = covered(begin, length, 80, np.ones(len(begin)))
    assert hours.sum() == pytest.approx(length.sum(), abs=1e-9)
    assert covered(begin, length, 80, length).sum() == pytest.approx((length**2).sum(), abs=1e-6)
    points = np.linspace(0, 80, 80 * 500, endpoint=False) + 0.001
    inside = ((points[:, None] >= begin) & (points[:, None] < begin + length)).sum(1)
    np.testing.assert_allclose(hours, inside.reshape(80, -1).mean(1), atol=0.005 * len(begin))


def test_energy_is_delivered_before_plug_out(source):
    begin = pd.Timestamp("2019-01-07 17:00")
    row = {"user": "G1-1", "begin": begin, "end": begin + pd.Timedelta(hours=1), "kwh": 9.0, "hours": 1.0}
    assert source([row], min_sessions=1).load().of(0)[16:19, 0].tolist() == pytest.approx([0, 9, 0])


def test_hourly_series_make_windows_of_the_next_day(source):
    series = source(sessions(each=60), plugged_in=True).load()
    windows = make_windows(series, WindowSpec(lookback=48, horizon=24))
    x, y = windows.gather(windows.positions("train", torch.arange(2), torch.zeros(2, 1, dtype=torch.int64)))
    assert (x.shape, y.shape) == ((2, 1, 48, 2), (2, 1, 24))


# --- bad input ---------------------------------------------------------------------------------------------


def resaved(find, replacement, line=4):
    """The official text with something replaced on one line."""
    lines = official(sessions()).split("\r\n")
    assert find in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(find, replacement)
    return "\r\n".join(lines)


BROKEN = {
    "another delimiter": (
        lambda: official(sessions()).replace(";", "\t"),
        "line 1: the columns are not parted by ';'",
    ),
    "a changed header": (lambda: resaved("El_kWh", "Energy", 1), "line 1: its header lacks El_kWh"),
    "an empty file": (lambda: "", "empty or no text"),
    "decimal points": (
        lambda: official(sessions()).replace(",", "."),
        "line 2, column 'El_kWh': .* is no number with a decimal comma",
    ),
    "decimals destroyed": (lambda: official(sessions()).replace(",", ""), "no decimal comma in 50 rows"),
    "an infinite energy": (
        lambda: resaved(sessions_kwh(2), ";inf;"),
        "line 4, column 'El_kWh': 'inf' is no number",
    ),
    "a missing energy": (
        lambda: resaved(sessions_kwh(2), ";NA;"),
        "line 4, column 'El_kWh': 'NA' is missing",
    ),
    "a negative energy": (lambda: resaved(sessions_kwh(2), ";-1,5;"), "session 3 .* not negative"),
    "a stamp of another kind": (
        lambda: resaved("2019", "19"),
        "line 4, column 'Start_plugin': .* is no stamp like",
    ),
    "a session twice": (lambda: resaved("3;G1", "2;G1"), "session_ID 2 stands on two rows"),
}


def sessions_kwh(row):
    return f";{comma(sessions()[row]['kwh'])};"


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_named_with_the_remedy(source, kind):
    text, message = BROKEN[kind]
    with pytest.raises(DataError, match=message) as caught:
        source(text(), task="energy").load()
    assert OFFICIAL in str(caught.value)
    assert "Download" in str(caught.value)


def test_clocks_that_go_back_are_an_error(source):
    rows = sessions()
    rows[7]["end"] = rows[7]["begin"] - pd.Timedelta(hours=3)
    with pytest.raises(DataError, match=r"session 8 of user .* it ends before it begins"):
        source(rows).load()


@pytest.mark.parametrize("column", ["hours", "kwh"])
def test_decimals_that_a_spreadsheet_destroyed_are_found(source, column):
    """A spreadsheet took 8,21 for 821 in one column; the other still has its commas."""
    rows = [row | {column: float(f"{row[column]:.2f}".replace(".", ""))} for row in sessions()]
    with pytest.raises(DataError, match=r"decimals are destroyed"):
        source(rows).load()


def test_energy_in_watt_hours_is_found(source):
    with pytest.raises(
        DataError, match=r"El_kWh over Duration_hours is more than 50 kW in 50 of 50 sessions"
    ):
        source([row | {"kwh": row["kwh"] * 1000 + 0.5} for row in sessions()]).load()


def test_no_file_is_an_error(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"No sessions in .* among 1 \.csv files"):
        build_source("ev_norway", root=str(tmp_path)).load()


def test_all_problems_of_the_options_come_in_one_message():
    with pytest.raises(DataError) as caught:
        build_source(
            "ev_norway",
            task="power",
            min_sessions=0,
            previous=-1,
            charging_kw=0,
            duplicates="x",
            max_hours=-1,
        )
    assert len(caught.value.problems) == 6


# --- the real files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["energy", "duration"])
def test_the_official_file_equals_the_prepared_table(shared_data, task):
    raw, prepared = (
        build_source(
            "ev_norway", root=str(shared_data / folder / "ev_charging_norway"), task=task, min_sessions=1
        )
        .load()
        .fingerprint()
        for folder in ("raw_samples", "vehicle")
    )
    assert raw == prepared


def test_the_real_population(shared_data):
    root = str(shared_data / "raw_samples" / "ev_charging_norway")
    everyone = build_source("ev_norway", root=root, task="energy", min_sessions=1).load()
    assert (len(everyone), len(everyone.inputs)) == (97, 6878)
    assert len(build_source("ev_norway", root=root, task="duration", min_sessions=1).load().inputs) == 6844
    assert [len(build_source("ev_norway", root=root, min_sessions=least).load()) for least in (20, 50)] == [
        70,
        45,
    ]
    known = pd.read_csv(shared_data / "vehicle" / "ev_charging_norway" / "clients.csv", index_col="client")
    assert known["garage"].to_dict() == everyone.attributes["garage"].to_dict()
    assert known["user_type"].to_dict() == everyone.attributes["user_type"].to_dict()


def test_the_derived_hours_equal_the_prepared_tables(shared_data):
    folder = shared_data / "vehicle" / "ev_charging_norway"
    series = build_source("ev_norway", root=str(folder), min_sessions=1, plugged_in=True).load()
    assert float(series.values[:, 0].double().sum()) == pytest.approx(87493, abs=1)
    for channel, name in enumerate(("hourly_energy_kwh_7p2kw", "hourly_plugged_in")):
        table = pd.read_parquet(folder / f"{name}.parquet")
        for number, client in enumerate(series.clients):
            first = int((series.starts[number] - table.index[0].to_datetime64()) // np.timedelta64(1, "h"))
            ours, theirs = series.of(number)[:, channel].numpy(), table[client].to_numpy()
            steps = min(len(ours), len(theirs) - first)
            np.testing.assert_allclose(ours[:steps], theirs[first : first + steps], atol=1e-4)
            assert theirs[:first].sum() == 0


def test_header_names_are_all_in_the_official_header():
    assert set(HEADER) <= set(COLUMNS.split(";"))
