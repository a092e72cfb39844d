"""Choosing with others' evidence: the ends, the slow way, and what must not matter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization import build_graph, pooled_choices
from personalization.pooling import CAUTIONS, STRENGTHS, choose

PLAIN = {"cautions": [0.0]}


def curves(clients=7, options=5, seed=0, low=1, high=9):
    generator = torch.Generator().manual_seed(seed)
    examples = torch.randint(low, high, (clients, 2), generator=generator)
    means = torch.rand(clients, 1, options, generator=generator, dtype=torch.float64) + 0.1
    noise = torch.rand(clients, 2, options, generator=generator, dtype=torch.float64)
    return (means + noise) * examples.unsqueeze(2), examples


def alike(clients):
    return torch.full((clients, clients), 1 / clients, dtype=torch.float64)


def by_hand(errors, examples, graph, strength):
    """The formula, client by client, for sums over one set of examples ``(clients, options)``."""
    chosen = []
    for client in range(len(errors)):
        own = errors[client].clone()
        for other in range(len(errors)):
            own += strength * graph[client, other] * errors[other] / examples[other]
        chosen.append(int(own.argmin()))
    return torch.tensor(chosen)


def relative(errors, examples):
    unit = errors.sum((1, 2)) / (examples.sum(1) * errors.shape[2])
    return errors / unit.view(-1, 1, 1)


def test_without_strength_everybody_takes_its_own_best():
    errors, examples = curves()
    pooled = pooled_choices(errors, examples, [alike(7)], [0.0], **PLAIN)
    assert torch.equal(pooled.options, errors.sum(1).argmin(1))
    assert torch.equal(pooled.crossed, errors.argmin(2).flip(1))


def test_endless_strength_is_one_choice_for_all():
    errors, examples = curves()
    pooled = pooled_choices(errors, examples, [alike(7)], [1e12], **PLAIN)
    means = (relative(errors, examples).sum(1) / examples.sum(1, keepdim=True)).mean(0)
    assert (pooled.options == means.argmin()).all()


@given(st.integers(0, 200), st.integers(2, 8), st.integers(1, 6), st.floats(0, 50))
@settings(deadline=None, max_examples=40)
def test_the_choice_is_the_formula(seed, clients, options, strength):
    errors, examples = curves(clients, options, seed)
    points = torch.randn(clients, 2, generator=torch.Generator().manual_seed(seed))
    graph = build_graph("kernel", scale=0.7)(torch.cdist(points, points).double(), torch.ones(clients))
    pooled = pooled_choices(errors, examples, [graph], [strength], **PLAIN)
    units = relative(errors, examples)
    assert torch.equal(pooled.options, by_hand(units.sum(1), examples.sum(1), graph, strength))
    for half in (0, 1):
        expected = by_hand(units[:, 1 - half], examples[:, 1 - half], graph, strength)
        assert torch.equal(pooled.crossed[:, half], expected)


@pytest.mark.parametrize("harm", [0.0, 0.3])
def test_what_is_taken_does_best_across_the_halves(harm):
    errors, examples = curves(12, 6, seed=3)
    graphs = [alike(12), torch.eye(12, dtype=torch.float64)]
    units, scores = relative(errors, examples), {}
    best = units[:, :, [0, 5]].amin(2)
    for number, graph in enumerate(graphs):
        for strength in STRENGTHS:
            for caution in CAUTIONS:
                crossed = pooled_choices(
                    errors, examples, [graph], [strength], safe=(0, 5), cautions=[caution]
                ).crossed
                taken = units.gather(2, crossed.unsqueeze(2)).squeeze(2)
                harmed = (taken > best * (1 + 1e-12)).double().mean()
                scores[number, strength, caution] = float((taken / examples).mean() + harm * harmed)
    got = pooled_choices(errors, examples, graphs, safe=(0, 5), harm=harm)
    assert scores[got.graph, got.strength, got.caution] == pytest.approx(min(scores.values()))


def test_caution_keeps_what_is_safe():
    pooled = torch.tensor(
        [[1.0, 0.98, 1.2], [1.0, 0.8, 1.2], [1.0, 0.97, 0.99], [1.0, 0.7, 0.8], [1.0, 0.6, 0.8]]
    )
    assert choose(pooled, (0, 2), 0.0).tolist() == [1, 1, 1, 1, 1]
    assert choose(pooled, (0, 2), 0.05).tolist() == [0, 1, 0, 1, 1]
    assert choose(pooled, (0, 2), 0.15).tolist() == [0, 1, 0, 2, 1]
    assert choose(pooled, (0, 2), 0.3).tolist() == [0, 0, 0, 0, 1]
    assert choose(pooled, (0, 2), 0.9).tolist() == [0] * 5


@given(st.integers(0, 100), st.sampled_from(CAUTIONS))
@settings(deadline=None, max_examples=25)
def test_more_caution_never_leaves_more_clients_without_a_safe_option(seed, caution):
    errors, examples = curves(20, 6, seed)
    chosen = [
        pooled_choices(errors, examples, [alike(20)], [3.0], safe=(0,), cautions=[d]).options
        for d in (caution, 0.2)
    ]
    assert (chosen[1] != 0).sum() <= (chosen[0] != 0).sum()


def test_minding_harm_harms_fewer_across_the_halves():
    shares = []
    for harm in (0.0, 10.0):
        errors, examples = curves(80, 8, seed=1, low=2, high=4)
        units = relative(errors, examples)
        crossed = pooled_choices(errors, examples, [alike(80)], safe=(0, 7), harm=harm).crossed
        taken = units.gather(2, crossed.unsqueeze(2)).squeeze(2)
        shares.append(float((taken > units[:, :, [0, 7]].amin(2) * (1 + 1e-12)).double().mean()))
    assert shares[1] <= shares[0]


def test_few_examples_borrow_and_many_decide_for_themselves():
    """All but one client prefer option 0 clearly; the odd one prefers option 1."""
    for number, expected in ((2, 0), (2000, 1)):
        examples = torch.full((9, 2), 50)
        examples[0] = number
        means = torch.tensor([[1.0, 2.0]]).repeat(9, 1)
        means[0] = torch.tensor([1.2, 1.0])
        errors = means.unsqueeze(1) * examples.unsqueeze(2)
        pooled = pooled_choices(errors, examples, [alike(9)], [30.0], **PLAIN)
        assert int(pooled.options[0]) == expected
        assert (pooled.options[1:] == 0).all()


def test_two_kinds_of_clients_are_told_apart_by_the_graph_alone():
    """Each client's few examples are noisy; with the graph of its kind it chooses right."""
    clients, generator = 200, torch.Generator().manual_seed(0)
    kind = torch.arange(clients) % 2
    examples = torch.full((clients, 2), 3)
    means = torch.tensor([[1.0, 1.4], [1.4, 1.0]], dtype=torch.float64)[kind].unsqueeze(1)
    noise = torch.randn(clients, 2, 2, generator=generator, dtype=torch.float64)
    errors = (means + noise * 0.4).clamp(min=0.01) * 3
    near = build_graph("kernel", scale=0.3)((kind.unsqueeze(1) != kind).double(), torch.ones(clients))
    pooled = pooled_choices(errors, examples, [alike(clients), near], **PLAIN)
    alone = pooled_choices(errors, examples, [alike(clients)], [0.0], **PLAIN)
    assert pooled.graph == 1
    assert (pooled.options == kind).double().mean() > (alone.options == kind).double().mean()


@given(st.integers(0, 100), st.floats(0.01, 100))
@settings(deadline=None, max_examples=25)
def test_neither_a_client_s_unit_nor_the_order_of_clients_matters(seed, factor):
    errors, examples = curves(6, 4, seed)
    graph = build_graph("kernel", scale=1.0)(
        torch.cdist(*[torch.arange(6.0)[:, None]] * 2).double(), torch.ones(6)
    )
    plain = pooled_choices(errors, examples, [graph])
    scaled = errors.clone()
    scaled[2] *= factor
    assert torch.equal(pooled_choices(scaled, examples, [graph]).options, plain.options)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    turned = pooled_choices(errors[order], examples[order], [graph[order][:, order]])
    assert torch.equal(turned.options, plain.options[order])


def test_a_client_without_examples_goes_by_the_others():
    errors, examples = curves()
    errors[4], examples[4] = 0.0, 0
    for strengths in ([0.0], STRENGTHS):
        pooled = pooled_choices(errors, examples, [alike(7)], strengths, **PLAIN)
        others = torch.arange(7) != 4
        unit = relative(errors[others], examples[others])
        means = (unit.sum(1) / examples[others].sum(1, keepdim=True)).mean(0)
        assert pooled.options[4] == means.argmin()


def test_no_evidence_at_all_is_the_first_option():
    pooled = pooled_choices(torch.zeros(3, 2, 4), torch.zeros(3, 2), [alike(3)])
    assert (pooled.options == 0).all()


def test_an_option_that_failed_is_nobody_s():
    errors, examples = curves()
    errors[1, 0, 2] = torch.inf
    errors[3, 1, 2] = torch.nan
    pooled = pooled_choices(errors, examples, [alike(7)])
    assert (pooled.options[[1, 3]] != 2).all()


def test_bad_input_is_refused():
    errors, examples = curves()
    with pytest.raises(ValueError, match=r"errors has shape \(7, 5\)"):
        pooled_choices(errors[:, 0], examples, [alike(7)])
    with pytest.raises(ValueError, match=r"\(7, 2\), none negative"):
        pooled_choices(errors, -examples, [alike(7)])
    with pytest.raises(ValueError, match="Graph 0 has shape"):
        pooled_choices(errors, examples, [alike(6)])
    with pytest.raises(ValueError, match="0 graphs"):
        pooled_choices(errors, examples, [])
    for wrong in ({"strengths": [-1.0]}, {"cautions": [1.0]}, {"harm": -1.0}):
        with pytest.raises(ValueError, match="not negative, a caution is a share"):
            pooled_choices(errors, examples, [alike(7)], **wrong)
    with pytest.raises(ValueError, match=r"safe=\(5,\)"):
        pooled_choices(errors, examples, [alike(7)], safe=(5,))


def test_clients_that_are_held_out_choose_and_teach_nobody():
    g = torch.Generator().manual_seed(5)
    errors, examples = 1 + torch.rand(20, 2, 4, generator=g), torch.full((20, 2), 6)
    seen = torch.arange(20) < 12
    graph = (seen.double() / 12).expand(20, -1)
    plain = pooled_choices(errors, examples, [graph], safe=(0, 3), harm=0.2, judges=seen)
    other = errors.clone()
    other[~seen] = 1 + torch.rand(8, 2, 4, generator=g)
    moved = pooled_choices(other, examples, [graph], safe=(0, 3), harm=0.2, judges=seen)
    assert (plain.strength, plain.caution) == (moved.strength, moved.caution)
    assert torch.equal(plain.options[seen], moved.options[seen])
    alone = pooled_choices(errors[seen], examples[seen], [graph[seen][:, seen]], safe=(0, 3), harm=0.2)
    assert (plain.strength, plain.caution) == (alone.strength, alone.caution)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"errors": -torch.ones(3, 2, 2)}, "a sum of errors is not negative"),
        ({"examples": torch.full((3, 2), torch.nan)}, "none negative"),
        ({"graphs": [torch.full((3, 3), torch.nan)]}, "negative weight or NaN"),
        ({"graphs": [-torch.eye(3)]}, "negative weight or NaN"),
        ({"strengths": (0.0, float("nan"))}, "is no number"),
        ({"cautions": (float("nan"),)}, "is no number"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(change, message):
    given = {"errors": torch.ones(3, 2, 2), "examples": torch.ones(3, 2), "graphs": [torch.eye(3)]}
    with pytest.raises(ValueError, match=message):
        pooled_choices(**{**given, **change})
