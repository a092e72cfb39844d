"""Descriptions of the real samples beside the checkout; skipped where they are not."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_loaders import build_source
from data_loaders.own import check_file, guess

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "own_data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared data folder {SHARED} is not here")
RAW = SHARED / "raw_samples"


@pytest.fixture
def london():
    return build_source(
        "london", root=str(SHARED / "electricity" / "lcl_london_2013"), frequency="30min"
    ).load()


def test_one_londoner_as_a_long_table_equals_the_prepared_table(load, london):
    series = load(
        f"""
        layout: long
        files: {RAW}/lcl_kaggle/MAC000002_2013.csv
        time: {{column: tstp}}
        client: {{column: LCLid}}
        value: {{column: energy(kWh/hh)}}
        attributes: {{file: {RAW}/lcl_kaggle/informations_households.csv, key: LCLid}}
        """
    )
    mine = london.clients.index("MAC000002")
    assert series.starts[0] == london.starts[mine]
    torch.testing.assert_close(series.of(0), london.of(mine), rtol=0, atol=1e-6, equal_nan=True)
    assert series.attributes["Acorn_grouped"].tolist() == ["Affluent"]


def test_london_as_a_wide_table_equals_the_london_source(tmp_path):
    folder = SHARED / "electricity" / "lcl_london_2013"
    for name in ("load_hourly.parquet", "clients.csv"):
        shutil.copy(folder / name, tmp_path)
    shutil.copy(EXAMPLES / "households_wide.yaml", tmp_path)
    series = build_source("own", file=str(tmp_path / "households_wide.yaml")).load()
    london = build_source("london", root=str(folder), min_coverage=0).load()
    assert series.clients == london.clients
    assert [item.client for item in series.dropped] == [item.client for item in london.dropped]
    assert torch.equal(series.offsets, london.offsets)
    torch.testing.assert_close(series.values, london.values, equal_nan=True)


def test_cambridge_as_a_folder_of_files(tmp_path):
    for place in RAW.glob("cambridge/UCam_Building_*"):
        shutil.copytree(place, tmp_path / place.name)
    shutil.copy(EXAMPLES / "buildings_folder.yaml", tmp_path)
    series = build_source("own", file=str(tmp_path / "buildings_folder.yaml")).load()
    assert series.clients == ("b0", "b19")
    files = sorted(RAW.glob("cambridge/UCam_Building_b19/electricity/*.csv"))
    raw = pd.concat([pd.read_csv(file) for file in files]).iloc[:, 1].to_numpy()
    ours = series.of(1)[:, 0].numpy()
    np.testing.assert_allclose(ours, np.where(raw == 0, np.nan, raw).astype(np.float32)[: len(ours)])
    assert np.isnan(ours).sum() == (raw == 0).sum() == 1436


def test_charging_sessions_as_labelled_samples(tmp_path):
    file = next((RAW / "ev_charging_norway").glob("*.csv"))
    shutil.copy(file, tmp_path)
    shutil.copy(EXAMPLES / "sessions_samples.yaml", tmp_path)
    samples = build_source("own", file=str(tmp_path / "sessions_samples.yaml")).load()
    raw = pd.read_csv(file, sep=";", decimal=",")
    counts = raw["User_ID"].value_counts()
    assert set(samples.clients) == set(counts.index[counts >= 20])
    assert samples.lengths.tolist() == [int(counts[client]) for client in samples.clients]
    for client in (0, 7):
        rows = raw[raw["User_ID"] == samples.clients[client]]
        np.testing.assert_allclose(
            samples.targets[samples.rows(client), 0], rows["El_kWh"].to_numpy(np.float32)
        )
    assert samples.inputs.shape[2] == 1 + raw["User_type"].nunique() + raw["weekdays_plugin"].nunique()
    assert guess(file)["layout"] == "samples"


def test_spoken_digits_with_a_manifest(written, tmp_path):
    with open(tmp_path / "manifest.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "speaker", "digit"])
        for path in sorted((RAW / "fsdd" / "recordings").glob("*.wav")):
            digit, speaker, _ = path.stem.split("_")
            rows.writerow([path, speaker, digit])
    yaml = "{layout: wav, files: manifest.csv, client: {column: speaker}, labels: {label: digit}}"
    report = check_file(written(yaml))
    assert report.ok
    assert report.totals["clients"] == 6
    assert report.totals["classes"] == {"0": 6, "7": 6}
    assert guess(tmp_path / "manifest.csv")["labels"] == {"label": "digit"}
