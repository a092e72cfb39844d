"""No test reads or writes the data folder of whoever runs it, and none fails because the machine is busy."""

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _a_data_home_of_its_own(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path_factory.mktemp("home")))
    monkeypatch.delenv("PERSOFL_NO_CACHE", raising=False)
