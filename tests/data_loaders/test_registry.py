from dataclasses import dataclass
from typing import ClassVar

import pytest

from data_loaders import SOURCES, About, DataError, build_source, register_source, source_info


@pytest.fixture
def _restore_sources():
    before = dict(SOURCES)
    yield
    SOURCES.clear()
    SOURCES.update(before)


def test_an_unknown_source_names_the_nearest():
    with pytest.raises(
        DataError, match=r"There is no data source 'lodnon'. Did you mean 'london'\? Known: .*london"
    ):
        build_source("lodnon")


@pytest.mark.usefixtures("_restore_sources")
def test_unknown_and_missing_options_come_in_one_message():
    @register_source("feeders")
    @dataclass(frozen=True)
    class Feeders:
        path: str
        min_days: float = 90
        about: ClassVar[About] = About()

        def load(self):
            raise NotImplementedError

    with pytest.raises(DataError) as caught:
        build_source("feeders", pat="here", min_day=3)
    first, second, third = caught.value.problems
    assert first.startswith("Source 'feeders' has no option 'pat'. Did you mean 'path'? Known: ")
    assert "Did you mean 'min_days'?" in second
    assert third == "Source 'feeders' needs path=..."


def test_every_source_describes_itself():
    rows = {row["name"]: row for row in source_info()}
    assert set(rows) == set(SOURCES)
    assert rows["london"]["licence"] == "CC BY 4.0"
    assert rows["simulated"]["needs"] == "nothing"
    needed = ("kind", "what", "clients", "licence", "needs", "task")
    assert all(row[key] for row in rows.values() for key in needed)


@pytest.mark.usefixtures("_restore_sources")
def test_a_name_is_taken_once_and_only_by_a_dataclass_with_load():
    @dataclass(frozen=True)
    class Mine:
        about: ClassVar[About] = About()

        def load(self):
            raise NotImplementedError

    register_source("mine")(Mine)
    register_source("mine")(Mine)  # a module that is imported again
    with pytest.raises(DataError, match="'london' is taken by London"):
        register_source("london")(Mine)
    with pytest.raises(DataError, match=r"int cannot be source 'number': .* lacks \['load', 'about'\]"):
        register_source("number")(int)
