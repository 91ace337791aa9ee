"""A misspelt name is answered with the one that was probably meant, whatever it is a name of."""

import pytest

from lfpc_trl import cli
from lfpc_trl.errors import UserError, did_you_mean, not_some_of
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("suggestions")
    tiny.make_rows(folder, 2, shown_size=[112, 84], targets=[[40, 42, 80, 84]])
    tiny.make_model(folder / "model", "qwen2_5_vl")
    (folder / "recipe.yaml").write_text("stage: 1\nsteps: 1\nlearning_rat: 1.0e-6\n")
    (folder / "loss.yaml").write_text("stage: 1\nsteps: 1\nlr_scheduler_type: cosin\n")
    (folder / "method.yaml").write_text("stage: 1\nsteps: 1\nmethod: lfcp\n")
    (folder / "column.jsonl").write_text('{"question": "q", "anser": "a", "image": "images/0.png"}\n')
    (folder / "own.py").write_text("def my_reward(attempts):\n    return [1.0] * len(attempts)\n")
    return folder


TRAIN = ["train", "--model", "model", "--data", "rows.jsonl", "--output", "out"]
EVAL = ["eval", "--model", "model", "--data", "rows.jsonl", "--output", "out", "--max-new-tokens", "4"]
SELECT = ["select-resolution", "--model", "model", "--data", "rows.jsonl", "--output", "out.jsonl"]
MISSPELT = {
    "a command": (["slpit"], "did you mean split?"),
    "an option": (["eval", "--modle", "m"], "did you mean --model?"),
    "a value of an option": (["ask", "--engine", "vlm", "p.png"], "got 'vlm', did you mean vllm?"),
    "a number of an option": (["check-data", "--data", "rows.jsonl", "--stage", "3"], "one of 1, 2, got '3'"),
    "a format": (["convert", "--from", "deepeye", "--input", "a", "--output", "b"], "did you mean deepeyes?"),
    "a layout of boxes": (
        ["convert", "--from", "coco", "--box-layout", "xyhw", "--input", "a", "--output", "b"],
        "did you mean xywh?",
    ),
    "a recipe": ([*TRAIN, "--config", "cpu-stge1"], "did you mean cpu-stage1?"),
    "a recipe's file": ([*TRAIN, "--config", "recpe.yaml"], "did you mean 'recipe.yaml'?"),
    "a setting": ([*TRAIN, "--config", "cpu-stage1", "--lerning_rate", "1"], "did you mean learning_rate?"),
    "a setting of a file": ([*TRAIN, "--config", "recipe.yaml"], "did you mean learning_rate?"),
    "a value of a setting": (
        [*TRAIN, "--config", "cpu-stage1", "--lr_scheduler_type", "cosin"],
        "did you mean cosine?",
    ),
    "a value in a file": ([*TRAIN, "--config", "loss.yaml"], "did you mean cosine?"),
    "a method in a file": ([*TRAIN, "--config", "method.yaml"], "did you mean lfpc?"),
    "an ending": (
        [*TRAIN, "--config", "cpu-stage1", "--mask_endings", "over_lng"],
        "did you mean over_long?",
    ),
    "a configuration of accelerate": (
        [*TRAIN, "--config", "cpu-stage1", "--accelerate_config", "zer3"],
        "did you mean zero3?",
    ),
    "a preset": (
        [*TRAIN, "--config", "cpu-stage1", "--reward", "presets:deepeye=1"],
        "did you mean deepeyes?",
    ),
    "a function of one's own": (
        [*TRAIN, "--config", "cpu-stage1", "--reward", "own.py:my_rewrd=1"],
        "did you mean my_reward?",
    ),
    "a column": (["check-data", "--data", "column.jsonl"], "(did you mean 'answer'?)"),
    "a mapped column": (["check-data", "--data", "rows.jsonl", "--columns", "qestion=q"], "mean question?"),
    "a layout of a mapped column": (
        ["check-data", "--data", "rows.jsonl", "--columns", "targets=b:xyhw"],
        "did you mean xywh?",
    ),
    "a condition": ([*EVAL, "--conditions", "predcited"], "did you mean predicted?"),
    "a layout of a benchmark": ([*EVAL, "--layout", "row"], "did you mean rows?"),
    "a benchmark": ([*EVAL, "--boxes", "rwos=rows.jsonl", "--data", "a=rows.jsonl"], "did you mean rows?"),
    "a comparison": ([*SELECT, "--same-answer", "reward"], "did you mean rewards?"),
    "a kind of question": (
        ["synthesize", "--rows", "1", "--output", "out", "--questions", "singel"],
        "did you mean single?",
    ),
    "a folder": (["export", "--model", "modle", "--output", "out"], "did you mean 'model'?"),
}


@pytest.mark.parametrize("what", MISSPELT)
def test_a_misspelt_name_comes_with_the_one_that_was_meant(what, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    words, message = MISSPELT[what]
    assert cli.main(words) == 2
    told = capsys.readouterr()
    assert message in told.out + told.err
    assert not (folder / "out").exists()


def test_nothing_is_suggested_where_nothing_is_near():
    assert did_you_mean("bananas", ["predicted", "target"]) == ""
    assert not_some_of("conditions", [], ["a"]) == "conditions must be some of a, got none"


def test_a_baseline_is_suggested():
    from lfpc_trl.evaluate.comparison import write_comparison

    with pytest.raises(
        UserError, match="--baseline must be one of large, small, got 'smal', did you mean sm"
    ):
        write_comparison({"large": "a", "small": "b"}, "out", baseline="smal")
