import pytest


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """Keep what sources prepare out of the user's cache."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("PERSOFL_DATA", str(home))
    return home
