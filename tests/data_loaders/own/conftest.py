import textwrap

import pytest

from data_loaders.own import Own


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch):
    monkeypatch.setenv("PERSOFL_NO_CACHE", "1")


@pytest.fixture
def load(tmp_path):
    """Write a YAML file and the files beside it, and load it."""

    def run(yaml, **files):
        return Own(str(write(tmp_path, yaml, **files))).load()

    return run


@pytest.fixture
def written(tmp_path):
    """Write a YAML file and the files beside it, and return the YAML file's path."""

    def run(yaml, **files):
        return write(tmp_path, yaml, **files)

    return run


def write(folder, yaml, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_csv", ".csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(textwrap.dedent(text).lstrip("\n"))
    file = folder / "mine.yaml"
    file.write_text(textwrap.dedent(yaml))
    return file
