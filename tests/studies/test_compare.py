from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studies.compare import bootstrap, control_table, group_table, interval, paired_table, summary_table


def scores(**methods):
    """method=[[client errors of seed 0], [of seed 1], ...]"""
    rows = [
        {"method": method, "seed": seed, "client": f"c{k}", "nmae": value}
        for method, seeds in methods.items()
        for seed, clients in enumerate(seeds)
        for k, value in enumerate(clients)
    ]
    return pd.DataFrame(rows)


TABLE = scores(
    local=[[0.2, 0.4, 0.6], [0.4, 0.4, 0.4]],
    fedavg=[[0.3, 0.3, 0.6], [0.5, 0.3, 0.1]],
    ditto=[[0.1, 0.3, 0.5], [0.3, 0.3, 0.3]],
)


def test_summary_of_a_handmade_table():
    table = summary_table(TABLE, "nmae")
    assert list(table.index) == ["local", "fedavg", "ditto"]
    assert table.loc["fedavg", "mean"] == pytest.approx(0.35)
    assert table.loc["fedavg", "median"] == pytest.approx(0.3)
    assert table.loc["fedavg", "worst_decile"] == pytest.approx(0.55)
    assert table.loc["local", "jain"] == pytest.approx((1.2**2 / (3 * 0.56) + 1) / 2)
    assert table.loc["fedavg", "worse_than_local"] == pytest.approx((1 / 3 + 1 / 3) / 2)
    assert table.loc["local", "worse_than_fedavg"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert table.loc["ditto", "worse_than_local"] == 0
    assert np.isnan(table.loc["local", "worse_than_local"])
    assert set(table["seeds"]) == {2}
    assert set(table["clients"]) == {3}


def test_interval_is_students():
    low, high = interval([1.0, 2.0, 4.0])
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    assert np.isnan(interval([1.0])).all()


def test_differences_are_paired_by_seed():
    row = paired_table(TABLE, "nmae").loc["ditto"]
    assert row["mean"] == pytest.approx(((0.3 - 0.4) + (0.3 - 0.3)) / 2)
    assert row["worst_decile"] == pytest.approx(((0.5 - 0.6) + (0.3 - 0.5)) / 2)
    assert (row["mean_low"], row["mean_high"]) == pytest.approx(interval([-0.1, 0.0]))


def test_identical_methods_do_not_differ():
    same = scores(fedavg=[[0.3, 0.5], [0.2, 0.9]], local=[[0.3, 0.5], [0.2, 0.9]])
    assert (paired_table(same, "nmae").loc["local"].drop("seeds") == 0).all()
    table = summary_table(same, "nmae")
    assert table.loc["local", "worse_than_fedavg"] == table.loc["fedavg", "worse_than_local"] == 0


def test_a_constant_shift_is_found_without_spread():
    shifted = scores(fedavg=[[0.3, 0.5], [0.2, 0.9]], other=[[0.2, 0.4], [0.1, 0.8]])
    row = paired_table(shifted, "nmae").loc["other"].drop(["seeds", "harmed", "harmed_low", "harmed_high"])
    assert row.to_numpy() == pytest.approx(-0.1)


def test_the_order_of_rows_does_not_matter():
    mixed = TABLE.sample(frac=1, random_state=3)
    order = ["local", "fedavg", "ditto"]
    pd.testing.assert_frame_equal(summary_table(mixed, "nmae").loc[order], summary_table(TABLE, "nmae"))
    order = ["local", "ditto"]
    pd.testing.assert_frame_equal(
        paired_table(mixed, "nmae").loc[order], paired_table(TABLE, "nmae").loc[order]
    )


def test_seeds_that_only_one_method_has_are_not_compared():
    uneven = pd.concat([TABLE, scores(ditto=[[9.0] * 3] * 3).query("seed == 2")])
    assert paired_table(uneven, "nmae").loc["ditto", "seeds"] == 2
    assert summary_table(uneven, "nmae").loc["ditto", "worse_than_local"] == 0


def test_clients_without_a_meaning_are_left_out():
    idle = scores(local=[[0.2, np.nan]], fedavg=[[0.3, np.nan]])
    table = summary_table(idle, "nmae")
    assert table.loc["local", "mean"] == pytest.approx(0.2)
    assert table.loc["fedavg", "worse_than_local"] == 1
    assert table.loc["local", "clients"] == 1


def test_without_the_reference_there_is_nothing_to_pair():
    alone = scores(ditto=[[0.1, 0.2]])
    assert paired_table(alone, "nmae").empty
    assert np.isnan(summary_table(alone, "nmae").loc["ditto", "worse_than_local"])


def test_groups_average_their_own_clients():
    groups = pd.Series({"c0": "flat", "c1": "house", "c2": "house", "c9": "house", "c8": None})
    table = group_table(TABLE, "nmae", groups)
    assert table.loc["flat", "fedavg"] == pytest.approx(0.4)
    assert table.loc["house", "fedavg"] == pytest.approx((0.3 + 0.6 + 0.3 + 0.1) / 4)
    assert table["clients"].to_dict() == {"flat": 1, "house": 2}


def test_bootstrap_covers_the_mean_and_shrinks_with_clients():
    rng = np.random.default_rng(0)
    few, many = rng.normal(1, 1, 20), rng.normal(1, 1, 2000)
    (low, high), (near_low, near_high) = bootstrap(few, 500), bootstrap(many, 500)
    assert low < few.mean() < high
    assert near_high - near_low < (high - low) / 5


def test_accuracies_compare_as_their_errors_do_the_other_way_round():
    errors = TABLE.rename(columns={"nmae": "error"})
    table = errors.assign(accuracy=1 - errors["error"])
    by_error, by_accuracy = summary_table(table, "error"), summary_table(table, "accuracy")
    for name in ("mean", "median", "worst_decile"):
        np.testing.assert_allclose(by_accuracy[name], 1 - by_error[name])
    for name in ("std", "worse_than_local", "worse_than_fedavg"):
        np.testing.assert_allclose(by_accuracy[name], by_error[name])
    down, up = paired_table(table, "error"), paired_table(table, "accuracy")
    for name in ("mean", "worst_decile"):
        np.testing.assert_allclose(up[name], -down[name], atol=1e-12)


# --- harm and controls -------------------------------------------------------------------------------------

HARM = scores(
    local=[[0.4, 0.4, 0.4, 0.4], [0.4, 0.4, 0.4, 0.4]],
    fedavg=[[0.3, 0.5, 0.3, 0.5], [0.3, 0.5, 0.3, 0.5]],
    by=[
        [0.2, 0.2, 0.35, 0.45],
        [0.2, 0.2, 0.2, 0.45],
    ],  # harmed: against fedavg 3rd, against local 4th; then 4th
    dealt=[[0.35, 0.45, 0.35, 0.45], [0.35, 0.45, 0.2, 0.2]],
)


def test_a_client_is_harmed_that_fares_worse_than_with_either():
    table = summary_table(HARM, "nmae")
    assert table.loc["by", "harmed"] == pytest.approx((0.5 + 0.25) / 2)
    assert table.loc["dealt", "harmed"] == pytest.approx((1.0 + 0.5) / 2)
    assert table.loc["local", "harmed"] == table.loc["local", "worse_than_fedavg"] == 0.5
    assert table.loc["fedavg", "harmed"] == table.loc["fedavg", "worse_than_local"] == 0.5
    low, high = table.loc["by", "harmed_low"], table.loc["by", "harmed_high"]
    assert (low + high) / 2 == pytest.approx(0.375)


def test_nobody_is_harmed_where_there_is_nothing_to_be_worse_than():
    assert np.isnan(summary_table(HARM[HARM["method"] != "local"], "nmae").loc["by", "harmed"])


def test_of_accuracies_more_is_better():
    accuracy = HARM.assign(accuracy=1 - HARM["nmae"])
    assert summary_table(accuracy, "accuracy").loc["by", "harmed"] == pytest.approx(0.375)


def test_steered_methods_are_set_against_each_of_their_controls():
    table = control_table(HARM, "nmae", {"by": ["dealt", "local", "absent"], "dealt": []})
    assert list(table.index) == [("by", "dealt"), ("by", "local")]
    row = table.loc[("by", "dealt")]
    assert row["mean"] == pytest.approx((0.30 - 0.40 + 0.2625 - 0.30) / 2)
    assert row["harmed"] == pytest.approx(((0.5 - 1.0) + (0.25 - 0.5)) / 2)
    assert row["worst_decile"] == pytest.approx(0.0)
    assert row["seeds"] == 2
    plain = paired_table(HARM, "nmae", "dealt").loc["by"]
    pd.testing.assert_series_equal(row, plain, check_names=False)


def test_without_controls_there_is_no_table():
    assert control_table(HARM, "nmae", {}).empty
    assert control_table(HARM.iloc[:0], "nmae", {"by": ["dealt"]}).empty
