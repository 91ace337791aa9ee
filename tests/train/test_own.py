"""Rewards of one's own and a judge in real trainings: what is paid, written down, and refused before."""

import dataclasses
import json

import pytest

from lfpc_trl import cli
from lfpc_trl.data.rows import write_rows
from lfpc_trl.errors import UserError
from lfpc_trl.runs.directory import read_manifest, read_metrics
from lfpc_trl.runs.trajectories import read_trajectories
from lfpc_trl.train import run
from lfpc_trl.train.own import JUDGED
from lfpc_trl.train.recipe import load_recipe
from tests.train.test_train import OPTIONS, recipe

MINE = '''
def looks(attempts):
    """1 for each crop; nothing is said of a row that is not well known."""
    return [None if each.row_id == "q3" else float(len(each.crops)) for each in attempts]

def fails(attempts):
    return [1 / 0 for each in attempts]

async def ask(question, answer, accepted):
    assert accepted == ["alpha"]
    return {"verdict": "yes" if answer == "A" else "no", "cost": 0.5}

def never_knows(question, answer, accepted):
    return "unknown" if answer == "A" else "yes"
'''
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def worded(rows):
    """Rows whose answer the taught model says in other words."""
    return [dataclasses.replace(row, answer=("alpha",)) for row in rows]


@pytest.mark.slow
def test_the_command_pays_and_writes_down_what_is_named_on_it(taught_dir, worded, mine, tmp_path, capsys):
    write_rows(worded, tmp_path / "rows.jsonl")
    words = ["train", "--config", "cpu-stage1", "--model", str(taught_dir), *OPTIONS, "--steps", "2"]
    words += ["--data", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "run")]
    words += ["--reward", f"{mine}:looks=0.5", "--reward", "presets:deepeyes=1.0", "--judge", f"{mine}:ask"]
    assert cli.main(words) == 0
    output = tmp_path / "run"
    for line in read_metrics(output):
        total = 0.8 * line["accuracy"] + 0.2 * line["format"] + 1.2 * line["tool_bonus"]
        total += line["rewards/deepeyes"]
        looks = [each for each in read_trajectories(output) if each.step == line["step"]]
        total += 0.5 * sum(each.scores["looks"] or 0 for each in looks) / len(looks)
        assert line["reward"] == pytest.approx(total, abs=1e-5)
        assert line["judge/yes"] > 0
        assert line["judge/unknown"] == 0
    code = read_manifest(output)["code"]
    assert code.keys() == {f"{mine}:looks", f"{mine}:ask"}
    assert {each["file"] for each in code.values()} == {str(mine)}
    assert all(len(each["sha256"]) == 64 for each in code.values())
    trajectories = read_trajectories(output)
    judged = [each for each in trajectories if each.verdict is not None]
    assert {each.verdict for each in judged if each.answer == "A"} == {"yes"}
    assert all(each.scores["accuracy"] == 1.0 for each in judged if each.verdict == "yes")
    # Two rows of one question: the judge was asked about an answer once, and paid once.
    [header, *records] = map(json.loads, (output / JUDGED / "0.jsonl").read_text().splitlines())
    assert header["judge"] == f"{mine}:ask"
    answers = [record["answer"] for record in records]
    assert len(answers) == len(set(answers))
    assert sum(each.verdict_cost for each in judged) <= 0.5 * len(records)
    # Another judge is another run; here a new process would read the file anew.
    mine.write_text(MINE.replace('"cost": 0.5', '"cost": 0.25'))
    capsys.readouterr()
    assert cli.main([*words, "--resume"]) == 2
    assert f"cannot resume, the code of {mine}:looks in {mine} has changed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rollout_that_the_judge_does_not_know_leaves_its_group(taught_dir, worded, mine, tmp_path):
    stage = recipe(1, steps=1, judge=f"{mine}:never_knows", trajectory_groups=4)
    run.train(stage, taught_dir, worded, tmp_path / "run")
    unknown = [each for each in read_trajectories(tmp_path / "run") if each.verdict == "unknown"]
    assert unknown
    for each in unknown:
        assert set(each.scores.values()) == {None}
        assert each.advantage == 0


@pytest.mark.slow
def test_a_reward_that_fails_ends_the_run_with_its_name(taught_dir, rows, mine, tmp_path):
    with pytest.raises(
        UserError, match=r"reward .*mine.py:fails: raised ZeroDivisionError in line 7 for row q"
    ):
        run.train(recipe(1, reward=[f"{mine}:fails"]), taught_dir, rows, tmp_path / "run")
    assert read_metrics(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": ["nowhere:f"]}, "reward nowhere:f: cannot be imported"),
        ({"reward": ["presets:vlm_r1"]}, "reward presets:vlm_r1: "),
        ({"reward": ["presets:deepeyes:exact"]}, "judge must be given"),
        ({"judge": "nowhere:f"}, "judge nowhere:f: cannot be imported"),
    ],
)
def test_what_cannot_work_is_refused_before_the_model_is_read(changes, message, taught_dir, rows, tmp_path):
    with pytest.raises(UserError, match=message):
        run.train(recipe(1, **changes), taught_dir, rows, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "mine:f"}, "reward must be a list, got 'mine:f'"),
        ({"reward": ["a:f", "b:f"]}, "reward b:f: another term is called f, rename it"),
        ({"reward": ["a:accuracy"]}, "another term is called accuracy"),
        ({"reward": ["mine"]}, "reward must be module:function=WEIGHT"),
        ({"judge_concurrency": 0}, "judge_concurrency must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        load_recipe("cpu-stage1", **changes)


# --- who may name code -------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["reward: [mine:looks=0.5]", "reward: mine:looks", "judge: mine:ask"])
def test_a_recipe_that_names_code_is_refused_unless_that_is_allowed(line, tmp_path, capsys):
    from lfpc_trl.train.recipe import recipe_file

    path = tmp_path / "sent.yaml"
    path.write_text(recipe_file("cpu-stage1").read_text() + line + "\n")
    with pytest.raises(UserError, match=r"the recipe names code, mine:\w+.*--allow-code"):
        load_recipe(path)
    words = ["train", "--config", str(path), "--model", "m", "--data", "d", "--output", "o"]
    assert cli.main(words) == 2
    assert "the recipe names code" in capsys.readouterr().err
    cli.main([*words, "--allow-code"])
    assert "the recipe names code" not in capsys.readouterr().err
    if "[" in line:
        assert load_recipe(path, allow_code=True).stage.reward == ["mine:looks=0.5"]


def test_a_recipe_may_name_published_rewards(tmp_path):
    from lfpc_trl.train.recipe import recipe_file

    path = tmp_path / "sent.yaml"
    path.write_text(recipe_file("cpu-stage1").read_text() + "reward: [presets:deepeyes=0.5]\n")
    assert load_recipe(path).weights() == [0.8, 0.2, 1.2, 0.5]


def test_rewards_may_be_named_one_by_one(tmp_path):
    from lfpc_trl.train.recipe import RecipeParser, parse, recipe_file, recipe_of

    words = [
        "--config",
        str(recipe_file("cpu-stage1")),
        "--reward",
        "a:f=1",
        "--seed",
        "3",
        "--reward=b:g",
        "c:h",
    ]
    assert recipe_of(parse(RecipeParser(), words)).stage.reward == ["a:f=1", "b:g", "c:h"]


def test_an_unknown_setting_near_reward_is_answered():
    with pytest.raises(UserError, match="unknown setting rewards, did you mean reward"):
        load_recipe("cpu-stage1", rewards=["a:f"])
