import pytest


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch, tmp_path):
    """Files are parsed in every test, and nobody's data are touched."""
    monkeypatch.setenv("PERSOFL_NO_CACHE", "1")
    monkeypatch.setenv("PERSOFL_DATA", str(tmp_path / "home"))
