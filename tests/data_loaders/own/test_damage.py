"""Damaged files: a load refuses them in our words or reads them, a check says the same, neither fails otherwise."""

import random

import pandas as pd
import pytest

from data_loaders import DataError
from data_loaders.own import Own, check_file, guess

STAMPS = [f"{stamp:%Y-%m-%d %H:%M}" for stamp in pd.date_range("2013-03-30", periods=60, freq="h")]
LONG = "timestamp,client,value\n" + "".join(
    f"{s},{c},{i % 7}.5\n" for c in "ab" for i, s in enumerate(STAMPS)
)
WIDE = "timestamp,a,b\n" + "".join(f"{s},{i % 5},{i % 7}.5\n" for i, s in enumerate(STAMPS))
SAMPLES = "client,x,y,label\n" + "".join(f"{'ab'[i % 2]},{i},{i * 2},{'pq'[i % 3 == 0]}\n" for i in range(40))
KINDS = (
    ("{layout: long, files: t.csv}", LONG),
    ("{layout: long, files: t.csv, time: {timezone: Europe/Madrid}, attributes: {file: t.csv}}", LONG),
    ("{layout: wide, files: t.csv, duplicates: mean}", WIDE),
    ("{layout: folder, files: t.csv}", LONG),
    ("{layout: samples, files: t.csv, labels: {label: label}}", SAMPLES),
)
JUNK = (
    b'\0 \xff , " ; \n \r\n 1e400 - nan 2013 9999-12-31 1500-01-01 2013-02-30 \xef\xbb\xbf +01:00 24:00 #2'
).split(b" ")


def damaged(text, draw):
    content = bytearray(text.encode())
    for _ in range(draw.randint(0, 3)):
        at = draw.randrange(len(content))
        content[at : at + draw.choice([0, draw.randint(1, 40)])] = draw.choice(JUNK)
    return bytes(content[: draw.randrange(60)] if draw.random() < 0.05 else content)


@pytest.mark.parametrize("seed", range(3))
def test_damage_is_refused_or_read_and_a_check_agrees(tmp_path, seed):
    draw = random.Random(seed)
    refused = 0
    for _ in range(25):
        yaml, text = draw.choice(KINDS)
        (tmp_path / "t.csv").write_bytes(damaged(text, draw))
        (tmp_path / "mine.yaml").write_text(yaml)
        try:
            loaded = len(Own(str(tmp_path / "mine.yaml")).load()) > 0
        except DataError:
            loaded, refused = False, refused + 1
        assert check_file(tmp_path / "mine.yaml").ok == loaded
        assert "layout" in guess(tmp_path / "t.csv")
    assert 0 < refused < 25
