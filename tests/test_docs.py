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


def test_readme_names_every_command_shipped_study_and_page():
    from studies.yamlfile import builtin_studies

    text = (ROOT / "README.md").read_text()
    for name in builtin_studies():
        assert f"`{name}`" in text, f"README does not name the shipped study {name}"
    for command in (
        "study run",
        "study show",
        "train",
        "methods",
        "ui",
        "data list, fetch, prepare, describe, check",
    ):
        assert f"persofl {command}" in text
    for page in [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/results/*.md")]:
        assert f"]({page.relative_to(ROOT)}" in text, f"README does not link {page.name}"


def test_readme_counts_the_sources():
    from data_loaders import SOURCES

    said = int(re.search(r"(\d+) sources", (ROOT / "README.md").read_text())[1])
    assert said == len(set(SOURCES) - {"own"})
