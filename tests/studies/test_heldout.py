from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from studies.heldout import mean_metrics, unseen_clients, without

TABLE = pd.DataFrame({"nmae": [0.1, 0.3, 0.8]}, index=pd.Index(["a", "b", "c"], name="client"))


def test_who_is_held_out_is_what_the_engine_takes_it_to_be():
    said = pd.DataFrame({"unseen": [True, False, np.nan]}, index=TABLE.index)
    assert unseen_clients(said) == {"a"}
    assert unseen_clients(said[["unseen"]].iloc[:2].astype(bool)) == {"a"}
    assert unseen_clients(pd.DataFrame(index=TABLE.index)) == frozenset()


def test_names_that_look_like_numbers_are_found():
    table = pd.DataFrame({"client": [7, 8], "nmae": [0.1, 0.2]})
    assert without(table, {"7"})["client"].tolist() == [8]
    assert without(table.set_index("client"), {"8"}).index.tolist() == [7]


def test_means_are_apart():
    assert {n: v for n, v, _ in mean_metrics(TABLE, {"c"})} == {
        "test/nmae": pytest.approx(0.2),
        "test/unseen_nmae": pytest.approx(0.8),
    }
    assert [n for n, _, _ in mean_metrics(TABLE, ())] == ["test/nmae"]
