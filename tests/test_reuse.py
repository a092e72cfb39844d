"""The scripts in examples/reuse do what their texts say, and import nothing of ours but personalization."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "examples" / "reuse").glob("*.py"))
OURS = {"persofl", "data_loaders", "studies", "benchmarks", "tests"}


def run(name, capsys):
    space = runpy.run_path(str(ROOT / "examples" / "reuse" / f"{name}.py"))
    return space, capsys.readouterr().out


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_only_personalization_is_imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    assert "personalization" in names
    assert not names & OURS


def test_the_package_alone_loads_nothing_else_of_ours():
    code = "import personalization.protocols, sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(done.stdout.split()) & (
        OURS | {"pytorch_lightning", "opacus", "flwr", "sklearn", "mlflow"}
    )


def test_fedavg_by_hand_serves_those_alike_and_those_unlike(capsys):
    space, out = run("fedavg_by_hand", capsys)
    unlike, errors = space["unlike"], space["errors"]
    plain, shared, personal = (
        errors(m) for m in ([space["plain"]] * 30, [space["shared"]] * 30, space["personal"])
    )
    assert shared[~unlike].mean() < plain[~unlike].mean()
    assert personal[unlike].mean() < 0.1 * plain[unlike].mean()
    assert personal[~unlike].mean() < plain[~unlike].mean()
    assert set(space["distances"].relative.topk(4).indices.tolist()) == set(space["odd"])
    assert out.count("error") == 3


def test_scikit_learn_gains_from_like_sites(capsys):
    space, out = run("sklearn_weights", capsys)
    own, alike, near = (sum(space["scores"][name]) for name in ("own site alone", "all alike", "by distance"))
    assert near < 0.7 * own
    assert near < 0.7 * alike
    assert "32 KiB" in out


def test_flower_weighs_the_odd_client_less_and_measures_what_one_process_would(capsys):
    pytest.importorskip("flwr")
    from personalization import distance_to_population

    space, _ = run("flower_strategy", capsys)
    strategy, means, data = space["strategy"], space["means"], space["data"]
    assert strategy.nodes == sorted(data)
    central = distance_to_population([data[node] for node in strategy.nodes])
    assert torch.allclose(strategy.distances.value.float(), central.value, atol=1e-4)
    assert torch.allclose(strategy.distances.relative.float(), central.relative, rtol=1e-2, atol=1e-3)
    assert torch.allclose(means["FedAvg"], torch.stack(list(data.values())).mean((0, 1)), atol=1e-5)
    assert float(means["by distance"].norm()) < 0.8 * float(means["FedAvg"].norm())


def test_flower_measures_anew_when_it_should_and_bears_silent_clients(capsys):
    pytest.importorskip("flwr")
    from flwr.app import Error, Message

    from personalization import build_modulator

    space, _ = run("flower_strategy", capsys)
    asked = []

    class Flaky(space["InOneProcess"]):
        def send_and_receive(self, messages, *, timeout=None):
            for message in messages:
                asked.append(message.metadata.message_type)
                if message.metadata.dst_node_id == 3 and message.metadata.message_type != "train":
                    yield Message(Error(code=1), reply_to=message)
                else:
                    yield from super().send_and_receive([message])

    strategy = space["DistanceFedAvg"](build_modulator("weight_by_distance"), every=2, **space["options"])
    strategy.start(Flaky(), space["start"], num_rounds=3)
    assert asked.count("query.summary") == 2 * 10
    assert strategy.nodes == [1, 2, *range(4, 11)]
