"""The code in README and CONTRIBUTING runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = [
    pytest.param(code, id=f"{name}-{number}")
    for name in ("README.md", "CONTRIBUTING.md")
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL))
]


@pytest.fixture
def registries():
    """Leave no example registered behind."""
    from persofl import ALGORITHMS
    from personalization import MODULATORS

    before = [(registry, dict(registry)) for registry in (ALGORITHMS, MODULATORS)]
    yield
    for registry, content in before:
        registry.clear()
        registry.update(content)


@pytest.mark.parametrize("code", BLOCKS)
def test_python_examples_run(code, registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "example", "exec"), names)
    if "Normalised" in names:
        train_briefly("normalised")
    if "ProxByRank" in names:
        train_briefly("ditto+prox_by_rank")


def train_briefly(method):
    """Two rounds of a method that an example registered."""
    import torch

    from data_loaders import SimulatedHouseholds, WindowSpec, make_windows
    from persofl import MLP, Shape, build_federation, parse_method, run_round

    data = make_windows(SimulatedHouseholds(clients=4, days=30).load(), WindowSpec(lookback=24, horizon=6))
    federation = build_federation(data, MLP(Shape(24, 6)), parse_method(method, {"lr": 0.05}))
    server = federation.initial_row()
    before = server.clone()
    losses = [run_round(federation, server, round_, server.sub_).loss for round_ in range(4)]
    assert not torch.equal(server, before)
    assert losses[-1] < losses[0]


def test_links_lead_somewhere():
    for page in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("*/README.md"),
    ]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), (
                f"{page.relative_to(ROOT)} links to {target}, which is not there"
            )
