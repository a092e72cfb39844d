"""Graphs between clients: row-stochastic, exact, and at their limits what they are said to be."""

from dataclasses import FrozenInstanceError, dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from personalization.graph import (
    GRAPHS,
    Graph,
    InverseGraph,
    KernelGraph,
    RowQPGraph,
    build_graph,
    register_graph,
    typical_distance,
)

NAMES = sorted(GRAPHS)


def between(points):
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def clients(count, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator, dtype=dtype)
    return between(points), torch.randint(5, 500, (count,), generator=generator)


def shares(n):
    return n.double() / n.sum()


def close(got, want, **tolerance):
    torch.testing.assert_close(got, want, **{"rtol": 1e-9, "atol": 1e-12, **tolerance})


def test_the_graphs_of_the_issue_are_all_there():
    assert set(GRAPHS) == {"kernel", "inverse", "row_qp"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-300, 1e-3, 0.5, 1.0, 4.0, 1e9, float("inf")])
def test_rows_are_shares_in_the_dtype_of_the_distances(name, dtype, scale):
    distances, n = clients(30, dtype=dtype)
    n[3] = 0
    weights = build_graph(name, scale=scale)(distances, n)
    assert weights.dtype == dtype
    assert weights.shape == (30, 30)
    assert ((weights >= 0) & torch.isfinite(weights)).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(30, dtype=dtype))
    assert (weights[:, 3] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_field_can_be_searched_and_is_frozen(name):
    graph = build_graph(name)
    search = GRAPHS[name].__dataclass_fields__["scale"].metadata["search"]
    assert search["low"] <= graph.scale <= search["high"]
    with pytest.raises(FrozenInstanceError):
        graph.scale = 2.0


# --- limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_an_endless_scale_gives_the_weights_of_fedavg(name):
    distances, n = clients(20)
    close(build_graph(name, scale=float("inf"))(distances, n), shares(n).expand(20, -1))
    close(build_graph(name, scale=1e8)(distances, n), shares(n).expand(20, -1), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_no_scale_leaves_everyone_alone(name):
    distances, n = clients(20)
    weights = build_graph(name, scale=1e-7)(distances, n)
    close(weights, torch.eye(20, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_equal_clients_share_by_size(name, scale):
    n = torch.tensor([10, 30, 60])
    close(build_graph(name, scale=scale)(torch.zeros(3, 3, dtype=torch.float64), n), shares(n).expand(3, -1))


@pytest.mark.parametrize("name", NAMES)
def test_twins_share_by_size_when_all_others_are_cut_off(name):
    points = torch.tensor([[0.0], [0.0], [5.0], [9.0]], dtype=torch.float64)
    weights = build_graph(name, scale=1e-9)(between(points), torch.tensor([10, 30, 20, 20]))
    want = torch.tensor([[0.25, 0.75, 0, 0], [0.25, 0.75, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    close(weights, want.double(), atol=1e-7)


@pytest.mark.parametrize("name", ["kernel", "row_qp"])
def test_a_client_held_out_takes_from_the_nearest(name):
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]], dtype=torch.float64)
    weights = build_graph(name, scale=1e-3)(between(points), torch.tensor([0, 20, 20, 20]))
    assert float(weights[0, 1]) > 0.99
    assert (weights[:, 0] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_one_client_keeps_all(name):
    assert build_graph(name)(torch.zeros(1, 1), torch.tensor([7])).tolist() == [[1.0]]


# --- shape of the weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(1e-3, 1e3), scale=st.floats(0.1, 10))
def test_units_and_names_of_clients_do_not_matter(name, seed, factor, scale):
    distances, n = clients(9, seed)
    graph, order = (
        build_graph(name, scale=scale),
        torch.randperm(9, generator=torch.Generator().manual_seed(seed)),
    )
    weights = graph(distances, n)
    close(graph(distances * factor, n * 3), weights, rtol=1e-6, atol=1e-9)
    close(graph(distances[order][:, order], n[order]), weights[order][:, order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10))
def test_the_nearer_of_two_equal_clients_counts_no_less(name, seed, scale):
    distances, _ = clients(9, seed)
    weights = build_graph(name, scale=scale)(distances, torch.full((9,), 5))
    by_distance = weights.gather(1, distances.argsort(1))
    assert (by_distance.diff(dim=1) <= 1e-12).all()


def test_formulas():
    points, n = (
        torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64),
        torch.tensor([10.0, 20.0, 30.0]).double(),
    )
    distances = between(points)
    assert float(typical_distance(distances)) == 2.0
    u = distances / 2 / 0.7
    for graph, raw in (
        (KernelGraph(0.7), n * (-(u**2)).exp()),
        (InverseGraph(0.7), n / (0.7 + distances / 2)),
    ):
        close(graph(distances, n), raw / raw.sum(1, keepdim=True))


# --- the quadratic programme -------------------------------------------------------------------------------


def objective(w, bias, n):
    return float((w**2 / n).sum() + (w @ bias) ** 2)


def slope(w, bias, n):
    return 2 * w / n + 2 * bias * (w @ bias)


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_row_qp_is_solved_as_scipy_solves_it(scale, seed):
    from scipy.optimize import minimize

    distances, n = clients(12, seed)
    weights = RowQPGraph(scale)(distances, n).numpy()
    sizes = (n / n.double().mean()).numpy()
    for k in range(12):
        bias = (distances[k] / typical_distance(distances) / scale).numpy()
        found = minimize(
            objective,
            np.full(12, 1 / 12),
            (bias, sizes),
            method="SLSQP",
            jac=slope,
            bounds=[(0, 1)] * 12,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-11, "maxiter": 500},
        )
        assert found.success
        assert objective(weights[k], bias, sizes) <= found.fun * (1 + 1e-8)
        np.testing.assert_allclose(weights[k], found.x, atol=2e-4)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(1e-4, 1e4), count=st.integers(2, 40))
def test_the_row_qp_meets_the_conditions_of_a_minimum(seed, scale, count):
    """No direction within the simplex goes down: the slope is equal where weights are positive, no less elsewhere."""
    distances, n = clients(count, seed)
    weights, sizes = RowQPGraph(scale)(distances, n), n / n.double().mean()
    bias = distances / typical_distance(distances) / scale
    down = weights / sizes + bias * (weights * bias).sum(1, keepdim=True)
    level = (weights * down).sum(1, keepdim=True)
    assert ((down - level).abs() <= 1e-9 * level)[weights > 0].all()
    assert (down >= level * (1 - 1e-9)).all()


def test_the_row_qp_cuts_far_clients_off_exactly():
    weights = RowQPGraph(0.1)(*clients(40))
    assert (weights == 0).any(1).all()
    assert (weights.diagonal() > 0).all()


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        (torch.zeros(2, 3), r"shape \(2, 3\); give all pairs"),
        (torch.zeros(0, 0), r"shape \(0, 0\)"),
        (torch.zeros(2, 2, dtype=torch.int64), "type torch.int64"),
        (torch.tensor([[0.0, torch.nan], [1.0, 0.0]]), "clients 0 and 1 is nan"),
        (torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), "clients 1 and 0 is -1.0"),
        (torch.tensor([[0.0, 1.0], [2.0, 0.0]]), "not symmetric"),
        (torch.tensor([[1.0, 1.0], [1.0, 1.0]]), "zero diagonal"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_distance_is_refused(name, distances, message):
    with pytest.raises(ValueError, match=message):
        build_graph(name)(distances, torch.ones(len(distances)))


@pytest.mark.parametrize("n", [[0, 0], [1, -1], [1.0, float("nan")]])
def test_sizes_that_say_nothing_are_refused(n):
    with pytest.raises(ValueError, match="n must be finite, at least 0"):
        KernelGraph()(torch.zeros(2, 2), torch.tensor(n))
    with pytest.raises(ValueError, match=r"n has shape \(3,\)"):
        KernelGraph()(torch.zeros(2, 2), torch.ones(3))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", NAMES)
def test_a_scale_out_of_range_is_refused(name, scale):
    with pytest.raises(ValueError, match=r"Graph: scale=.* must be greater than 0"):
        build_graph(name, scale=scale)


def test_names_are_found_or_the_nearest_is_told():
    with pytest.raises(ValueError, match="did you mean 'kernel'"):
        build_graph("kernels")
    with pytest.raises(
        ValueError, match="Unknown parameter of graph 'kernel' 'scales'; did you mean 'scale'"
    ):
        build_graph("kernel", scales=1.0)

    @dataclass(frozen=True)
    class Other(Graph):
        scale: float = 1.0

        def rows(self, scaled, n):
            return n.expand_as(scaled)

    with pytest.raises(ValueError, match="belongs to KernelGraph"):
        register_graph("kernel")(Other)
    close(Other()(*clients(4)), shares(clients(4)[1]).expand(4, -1))
