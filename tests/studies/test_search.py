from __future__ import annotations

import math

import pytest

from studies.config import SearchConfig
from studies.errors import StudyError
from studies.search import Outcome, Pruner, Space, frozen, propose, selected
from studies.trialstore import TrialStore

RANGES = {
    "lr": {"low": 0.01, "high": 1.0, "log": True},
    "mix": {"low": 0.0, "high": 1.0},
    "steps": {"low": 1, "high": 100, "log": True},
    "kind": {"choices": ["a", "b"]},
}
SPACE = Space("ditto", RANGES, {"lr": 0.1, "mix": 0.5, "steps": 20, "kind": "a"})
CONFIG = SearchConfig(trials=8, startup=4)


def value_of(params):
    return abs(math.log(params["lr"] / 0.3)) + abs(params.get("mix", 0.5) - 0.7)


def searched(space, config, trials, history=()):
    history = list(history)
    while len(history) < trials:
        params = propose(space, history, config)
        history.append(frozen(Outcome(params, {5: 9.0, 10: value_of(params)}), space))
    return history


def test_the_first_trial_is_the_defaults():
    assert propose(SPACE, [], CONFIG) == {"lr": 0.1, "mix": 0.5, "steps": 20, "kind": "a"}


def test_defaults_outside_the_range_move_to_its_edge():
    space = Space(
        "ditto", {"lr": {"low": 0.2, "high": 1.0}, "kind": {"choices": ["b", "c"]}}, {"lr": 0.1, "kind": "a"}
    )
    assert propose(space, [], CONFIG) == {"lr": 0.2, "kind": "b"}


def test_proposals_stay_in_their_ranges_and_types():
    for trial in searched(SPACE, CONFIG, 8):
        assert 0.01 <= trial.params["lr"] <= 1
        assert 0 <= trial.params["mix"] <= 1
        assert isinstance(trial.params["steps"], int)
        assert 1 <= trial.params["steps"] <= 100
        assert trial.params["kind"] in ("a", "b")


def test_a_search_cut_off_anywhere_goes_on_as_if_it_had_not_been():
    whole = searched(SPACE, CONFIG, 8)
    for cut in range(8):
        resumed = searched(SPACE, CONFIG, 8, whole[:cut])
        assert [t.params for t in resumed] == [t.params for t in whole]


def test_seed_and_method_change_the_search():
    base = [t.params for t in searched(SPACE, CONFIG, 8)]
    other_seed = [t.params for t in searched(SPACE, SearchConfig(trials=8, startup=4, seed=1), 8)]
    other_label = [t.params for t in searched(Space("apfl", RANGES, SPACE.defaults), CONFIG, 8)]
    assert base[1:] != other_seed[1:]
    assert base[:4] == other_label[:4]
    assert base[4:] != other_label[4:]


def test_methods_try_the_same_values_of_a_shared_parameter_first_one_from_each_part_of_the_range():
    alone = Space("fedavg", {"lr": RANGES["lr"]}, {"lr": 0.1})
    rates = [t.params["lr"] for t in searched(alone, CONFIG, 4)]
    assert rates == [t.params["lr"] for t in searched(SPACE, CONFIG, 4)]
    thirds = sorted(int(3 * math.log(rate / 0.01) / math.log(100)) for rate in rates[1:])
    assert thirds == [0, 1, 2]


def test_the_last_round_counts_not_the_best_one():
    lucky = frozen(Outcome({**SPACE.defaults}, {5: 0.1, 10: 0.9}), SPACE)
    steady = frozen(Outcome({**SPACE.defaults, "lr": 0.2}, {5: 0.5, 10: 0.5}), SPACE)
    assert selected("ditto", [lucky, steady]).params["lr"] == 0.2


def test_diverged_and_pruned_trials_count_but_are_never_chosen():
    diverged = frozen(
        Outcome(SPACE.defaults, {5: 0.01}, "diverged", "The loss of client 'a' became nan."), SPACE
    )
    pruned = frozen(Outcome(SPACE.defaults, {5: 0.02}, "pruned"), SPACE)
    good = frozen(Outcome(SPACE.defaults, {5: 1.0, 10: 0.8}), SPACE)
    assert selected("ditto", [diverged, pruned, good]) is good
    with pytest.raises(
        StudyError,
        match=r"No trial of method 'ditto' reached its last round \(2 tried\). The loss of client 'a'",
    ):
        selected("ditto", [diverged, pruned])
    assert propose(SPACE, [diverged, pruned, good, diverged], CONFIG).keys() == RANGES.keys()


def test_ties_go_to_the_earlier_trial(tmp_path):
    store = TrialStore.open(tmp_path, "s")
    for lr in (0.1, 0.2):
        store.add("ditto", frozen(Outcome({**SPACE.defaults, "lr": lr}, {1: 0.5}), SPACE))
    assert selected("ditto", store.history("ditto")).params["lr"] == 0.1


def test_pruning_needs_finished_trials_and_warm_rounds():
    good = [frozen(Outcome(SPACE.defaults, {5: 0.5, 10: 0.4}), SPACE) for _ in range(3)]
    assert Pruner.of(good, CONFIG, 10).prunes(5, 0.9)
    assert not Pruner.of(good, CONFIG, 10).prunes(5, 0.4)
    assert not Pruner.of(good[:2], CONFIG, 10).prunes(5, 0.9)
    assert not Pruner.of(good, CONFIG, 100).prunes(5, 0.9)
    assert not Pruner.of(good, SearchConfig(pruning=False), 10).prunes(5, 0.9)


def test_trials_on_disk_are_those_that_were_stored(tmp_path):
    store = TrialStore.open(tmp_path, "winter")
    trials = searched(SPACE, CONFIG, 3)
    for trial in trials:
        store.add("ditto", trial)
    store.add("apfl", trials[0])
    again = TrialStore.open(tmp_path, "winter")
    assert [t.params for t in again.history("ditto")] == [t.params for t in trials]
    assert [t.value for t in again.history("ditto")] == [t.value for t in trials]
    assert TrialStore.open(tmp_path, "summer").history("ditto") == []
    again.clear()
    assert again.history("ditto") == again.history("apfl") == []


def test_nothing_to_tune_is_a_space_too():
    assert propose(Space("local", {}, {"lr": 0.1}), [], CONFIG) == {}


def test_where_more_is_better_the_highest_value_wins_and_the_low_ones_are_pruned(tmp_path):
    space = Space("ditto", RANGES, SPACE.defaults, higher=True)
    trials = [
        frozen(Outcome({**SPACE.defaults, "lr": lr}, {5: value, 10: value}), space)
        for lr, value in ((0.1, 0.5), (0.2, 0.9), (0.3, 0.9), (0.4, 0.2))
    ]
    store = TrialStore.open(tmp_path, "s")
    for trial in trials:
        store.add("ditto", trial, higher=True)
    history = store.history("ditto")
    assert selected("ditto", history, higher=True).params["lr"] == 0.2
    assert selected("ditto", history).params["lr"] == 0.4
    assert Pruner.of(history, CONFIG, 10, higher=True).prunes(5, 0.1)
    assert not Pruner.of(history, CONFIG, 10, higher=True).prunes(5, 0.95)
    assert Pruner.of(history, CONFIG, 10).prunes(5, 0.95)


def test_the_search_goes_uphill_where_more_is_better():
    def searched_for(higher):
        space, history = Space("ditto", {"lr": RANGES["lr"]}, {"lr": 0.1}, higher), []
        for _ in range(14):
            params = propose(space, history, SearchConfig(trials=14, startup=4))
            history.append(frozen(Outcome(params, {10: math.log(params["lr"])}), space))
        return [trial.params["lr"] for trial in history[4:]]

    up, down = searched_for(higher=True), searched_for(higher=False)
    assert math.exp(sum(map(math.log, up)) / len(up)) > 3 * math.exp(sum(map(math.log, down)) / len(down))
