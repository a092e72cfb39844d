import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = re.findall(
    r"```python\n(.*?)```", (ROOT / "personalization" / "README.md").read_text(), flags=re.DOTALL
)
SCRIPTS = {path.stem: path.read_text() for path in (ROOT / "examples" / "reuse").glob("*.py")}


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run_as_they_stand(number, capsys):
    if "flwr" in SNIPPETS[number]:
        pytest.importorskip("flwr")
    exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), {})
    assert capsys.readouterr().out or "class DistanceFedAvg" in SNIPPETS[number]


@pytest.mark.parametrize("name", ["fedavg_by_hand", "flower_strategy", "sklearn_weights"])
def test_the_scripts_are_shown_as_they_are(name):
    shown = [snippet for snippet in SNIPPETS if SCRIPTS[name].startswith(snippet.rstrip())]
    assert len(shown) == 1


def test_every_script_is_shown():
    assert len(SCRIPTS) == 3


def test_the_parts_of_a_federation_give_what_one_process_gives():
    import torch

    from personalization import distance_to_population

    space = {}
    exec(
        next(snippet for snippet in SNIPPETS if "protocol.answer" in snippet and "flwr" not in snippet), space
    )
    central = distance_to_population(space["samples"])
    assert torch.allclose(space["distances"].p_value.float(), central.p_value, atol=1e-3)
    assert torch.allclose(space["distances"].value.float(), central.value, atol=1e-4)
