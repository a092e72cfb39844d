"""What is written in each layout is what is read."""

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_loaders.own import Own

FORMATS = ("%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %I:%M %p", "%Y-%m-%dT%H:%M:%S%z")


@st.composite
def populations(draw):
    """A few clients on one grid with gaps, starting at their own time, and how they are written."""
    step = draw(st.sampled_from([900, 1800, 3600]))
    numbers = np.random.default_rng(draw(st.integers(0, 1000)))
    # around the clock changes of Europe in 2013
    begin = pd.Timestamp(draw(st.sampled_from(["2013-03-30", "2013-10-26", "2013-06-01"])), tz="UTC")
    clients = {}
    for name in draw(st.lists(st.sampled_from(["a", "B 2", "007", "Zähler"]), min_size=1, unique=True)):
        steps = draw(st.integers(40, 60)) * 3600 // step
        values = numbers.integers(1, 10**6, steps).astype(np.float32) / 64
        gaps = numbers.random(steps) < draw(st.sampled_from([0, 0.1]))
        gaps[[0, 1, -1]] = False
        values[gaps] = np.nan
        index = begin + pd.to_timedelta(np.arange(steps) * step + 3600 * draw(st.integers(0, 5)), unit="s")
        clients[name] = pd.Series(values, index)
    return step, clients


@st.composite
def styles(draw):
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    decimal = "." if delimiter == "," else draw(st.sampled_from([".", ","]))
    return {
        "delimiter": delimiter,
        "decimal": decimal,
        "thousands": draw(st.sampled_from(["", "'"])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "latin-1", "utf-16"])),
    }


def as_text(values, style):
    words = ["" if np.isnan(value) else f"{value:{',' if style['thousands'] else ''}.6f}" for value in values]
    marks = str.maketrans({".": style["decimal"], ",": style["thousands"]})
    return [word.translate(marks) for word in words]


def as_stamps(index, form, zone):
    return index.tz_convert(zone).strftime(form)


def write_table(path, table, style):
    path.parent.mkdir(exist_ok=True)
    path.write_text(table.to_csv(sep=style["delimiter"], index=False), encoding=style["encoding"])


def write_long(folder, clients, style, stamped):
    rows = [
        pd.DataFrame({"Zeit": stamped(s.index), "Zähler": name, "Wert": as_text(s.to_numpy(), style)})
        for name, s in clients.items()
    ]
    write_table(folder / "long.csv", pd.concat(rows), style)
    return {"files": "long.csv", "client": {"column": "Zähler"}, "value": {"column": "Wert"}}


def write_folder(folder, clients, style, stamped):
    for name, series in clients.items():
        half = len(series) // 2
        for part, piece in enumerate((series[:half], series[half:])):
            table = pd.DataFrame({"Zeit": stamped(piece.index), "Wert": as_text(piece.to_numpy(), style)})
            write_table(folder / f"meter {name}" / f"{part}.csv", table, style)
    return {
        "files": "*/*.csv",
        "client": {"pattern": "meter {client}/{part}.csv"},
        "value": {"column": "Wert"},
    }


def write_wide(folder, clients, style, stamped):
    table = pd.DataFrame(clients)
    text = {name: as_text(table[name].to_numpy(np.float32), style) for name in table}
    write_table(folder / "wide.csv", pd.DataFrame({"Zeit": stamped(table.index), **text}), style)
    return {"files": "wide.csv"}


WRITERS = {"long": write_long, "folder": write_folder, "wide": write_wide}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    populations(),
    styles(),
    st.sampled_from(list(WRITERS)),
    st.sampled_from(FORMATS),
    st.sampled_from(["UTC", "Europe/Madrid", "America/New_York"]),
)
def test_a_population_reads_back_whatever_the_layout_and_the_style(
    tmp_path_factory, population, style, layout, form, zone
):
    step, clients = population
    folder = tmp_path_factory.mktemp("own")
    said = WRITERS[layout](folder, clients, style, lambda index: as_stamps(index, form, zone))
    time = {"column": "Zeit", "format": form, "timezone": zone, "step": f"{step}s"}
    csv = {**style, "encoding": style["encoding"].removesuffix("-sig")}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"layout": layout, "csv": csv, "time": time, **said}))
    series = Own(str(folder / "mine.yaml")).load()
    assert series.clients == tuple(sorted(clients))
    assert series.step_seconds == step
    for number, name in enumerate(series.clients):
        wanted = clients[name]
        assert series.starts[number] == wanted.index[0].tz_localize(None).to_datetime64()
        torch.testing.assert_close(
            series.of(number)[:, 0], torch.tensor(wanted.to_numpy()), rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("layout", ["wide", "long"])
def test_parquet_reads_as_csv_does_and_only_its_columns(load, tmp_path, layout):
    stamps = pd.date_range("2013-01-01", periods=48, freq="h")
    values = np.arange(48) / 4
    wide = pd.DataFrame({"timestamp": stamps, "a": values, "b": values[::-1], "note": "x"})
    long = wide.melt("timestamp", ["a", "b"], "client", "value").assign(note="x")
    table = wide if layout == "wide" else long
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    both = [
        load(f"{{layout: {layout}, files: t.{kind}, client: {{ignore: [note, __index_level_0__]}}}}")
        for kind in ("parquet", "csv")
    ]
    assert both[0].fingerprint() == both[1].fingerprint()
    assert both[0].clients == ("a", "b")


def test_stamps_with_an_offset_are_utc_whatever_the_zone(load):
    text = "timestamp,client,value\n2013-01-01T01:00:00+01:00,a,1\n2013-01-01T02:00:00+01:00,a,2\n"
    series = load("{layout: long, files: t.csv, time: {timezone: Europe/Madrid}}", t_csv=text)
    assert str(series.starts[0]) == "2013-01-01T00:00:00"


def test_numbers_since_1970_and_24_o_clock_are_stamps(load):
    unix = "timestamp,client,value\n1356998400000,a,1\n1356998400100,a,2\n1356998400200,a,3\n"
    series = load("{layout: long, files: t.csv, time: {format: unix_ms}, value: {unit: km/h}}", t_csv=unix)
    assert (series.step_seconds, str(series.starts[0])) == (0.1, "2013-01-01T00:00:00")
    late = "timestamp,client,value\n01.01.2013 23:00,a,1\n01.01.2013 24:00,a,2\n02.01.2013 01:00,a,3\n"
    series = load("{layout: long, files: t.csv, time: {format: '%d.%m.%Y %H:%M'}}", t_csv=late)
    assert series.of(0)[:, 0].tolist() == [1, 2, 3]


def test_covariates_are_channels_and_runs_are_broken_at_long_gaps(load):
    rows = [f"{t / 10:.1f},car,{t},{t * 2}" for t in [*range(20), *range(36000, 36030)]]
    series = load(
        """
        layout: long
        files: t.csv
        time: {column: t, format: unix, new_run_after: 1min}
        value: {column: speed, unit: m/s, to: km/h}
        covariates: [power]
        known: [power]
        """,
        t_csv="t,client,speed,power\n" + "\n".join(rows),
    )
    assert series.channel_names == ("speed", "power")
    assert series.known == ("power",)
    assert series.values.shape == (50, 2)
    assert series.breaks.tolist() == [20]
    torch.testing.assert_close(series.values[1], torch.tensor([3.6, 2.0]))
    assert any("begins a new run" in rule for rule in series.rules)


def test_the_attributes_table_follows_the_clients(load):
    series = load(
        """
        layout: wide
        files: t.csv
        attributes: {file: who.csv, key: meter, delimiter: ";", decimal: ","}
        """,
        t_csv="timestamp,b,01\n2013-01-01 00:00,1,2\n2013-01-01 01:00,1,2\n",
        who_csv="meter;tariff;area\n01;flat;80,5\nb; ToU;120\nnobody;flat;1\n",
    )
    assert series.clients == ("01", "b")
    assert series.attributes["tariff"].tolist() == ["flat", "ToU"]
    assert series.attributes["area"].tolist() == [80.5, 120.0]
