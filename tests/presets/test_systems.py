"""What holds for all systems: names, documentation, tests, and that nothing is loaded or evaluated."""

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lfpc_rewards import presets

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lfpc_rewards" / "presets"
FUNCTIONS = sorted(name for name in presets.__all__ if inspect.isfunction(getattr(presets, name)))
REWARDS = sorted(name for system in presets.SYSTEMS for name in system.rewards)
PAGE = (ROOT / "docs" / "reference" / "presets.md").read_text(encoding="utf-8")


def test_all_is_sorted_and_every_name_exists():
    assert presets.__all__ == sorted(
        presets.__all__, key=lambda name: (not name.isupper(), name.islower(), name)
    )
    assert all(hasattr(presets, name) for name in presets.__all__)


def test_every_reward_belongs_to_one_system_and_every_system_has_some():
    assert sorted({*FUNCTIONS} - {"batch_judge"}) == REWARDS
    assert all(system.rewards for system in presets.SYSTEMS)


def test_every_system_names_its_loopholes_once_and_what_it_is_blind_to():
    for system in presets.SYSTEMS:
        names = [hole.name for hole in system.loopholes]
        assert len(set(names)) == len(names) > 0
        assert system.blind_to
        assert re.fullmatch(r"\d{4}\.\d{5}|none", system.paper)


def test_every_system_has_a_row_on_the_page_with_its_rewards():
    rows = dict(re.findall(r"^\| ([^|]+) \| (`[^|]+) \|", PAGE, re.MULTILINE))
    expected = {system.name: ", ".join(f"`{name}`" for name in system.rewards) for system in presets.SYSTEMS}
    assert rows == expected


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_has_a_docstring_with_its_sections(name):
    thing = getattr(presets, name)
    for section in ("Args:", "Returns:", "Source:", "Example:"):
        assert section in thing.__doc__, section
    assert len(thing.__annotations__) == len(inspect.signature(thing).parameters) + 1


@pytest.mark.parametrize("module", sorted(path.stem for path in (PACKAGE / "systems").glob("[a-z]*.py")))
def test_every_system_has_a_test_of_its_tricks(module):
    stem = module.removesuffix("_ports")
    text = (Path(__file__).parent / f"test_{stem}.py").read_text(encoding="utf-8")
    assert "fools_exact_but_not_strict" in text
    assert "keeps_the_contract" in text


def test_nothing_evaluates_text():
    for path in PACKAGE.rglob("*.py"):
        called = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert called.isdisjoint({"eval", "exec", "compile", "__import__"})


def test_importing_the_core_does_not_load_the_presets():
    code = "import lfpc_rewards, sys; print([name for name in sys.modules if 'presets' in name])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_judge_of_the_core_serves_the_presets():
    async def judge(question, answer, accepted):
        return {"a": "yes", "b": "no"}.get(answer, "unknown")

    batch = presets.batch_judge(judge)
    assert batch(["q"] * 3, ["a", "b", "c"], ["x"] * 3) == [True, False, None]

    async def rude(question, answer, accepted):
        return "perhaps"

    with pytest.raises(ValueError, match='judge must return "yes", "no" or "unknown", got \'perhaps\''):
        presets.batch_judge(rude)(["q"], ["a"], ["x"])


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("1", 1.0),
        ("Score: 0", 0.0),
        ("## Equivalence Judgement\nTRUE", 1.0),
        ("Reasoning, then \\boxed{Yes}", 1.0),
        ("The verdict: incorrect.", 0.0),
        ("not correct", None),
        ("Judgement: 0 or 1", None),
        ("10", None),
        ("", None),
    ],
)
def test_strict_hears_one_plain_verdict_only(reply, verdict):
    from lfpc_rewards.presets._judging import read_verdict

    heard = read_verdict(reply)
    assert heard == verdict or (verdict is None and heard != heard)
