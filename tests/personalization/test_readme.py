import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "personalization" / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run_as_they_stand(number, capsys):
    exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), {})
    assert capsys.readouterr().out


def test_the_first_does_what_its_text_says():
    space = {}
    exec(SNIPPETS[0], space)
    distances, weight, mix = space["distances"], space["weight"].squeeze(1), space["mix"].squeeze(1)
    assert distances.p_value[2] < 1e-3
    assert distances.relative.argmax() == mix.argmax() == 2
    assert int((weight / distances.n).argmin()) == 2
    assert distances.value[0] > 2 * distances.value[5]
    assert distances.relative[0] < 0.1 * distances.relative[2]


def test_there_are_two_snippets():
    assert len(SNIPPETS) == 2
