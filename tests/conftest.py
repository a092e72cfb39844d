"""No test reads or writes the data folder of whoever runs it."""

import pytest


@pytest.fixture(autouse=True)
def _a_data_home_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("PERSOFL_NO_CACHE", raising=False)
