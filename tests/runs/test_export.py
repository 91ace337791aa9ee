"""A trained model as a directory for others: what it holds, what its card says, and who loads it."""

import json
import re
import shutil

import pytest
import yaml
from transformers import AutoModelForImageTextToText, AutoTokenizer

from lfpc_trl import cli
from lfpc_trl.models.families import FAMILIES
from lfpc_trl.models.prepare import planned_changes
from lfpc_trl.runs import export
from lfpc_trl.train.recipe import load_recipe

FIGURES = {
    "reward": 1.5,
    "accuracy": 0.75,
    "tool_calls": 1.0,
    "iou": None,
    "overlap": 0.9,
    "bbox_ratio": 0.05,
}


def make_run(folder, model_dir, start, *, stage, finished=True):
    """What a training leaves behind, without training."""
    shutil.copytree(model_dir, folder)
    recipe = load_recipe(f"cpu-stage{stage}", steps=7, num_generations=4, prompts_per_step=2)
    manifest = {
        "stage": stage,
        "recipe": recipe.flat(),
        "frame": "shown",
        "model": {"directory": str(start), "sha256": "a" * 64},
        "data": {"rows": 1200 * stage, "sha256": "b" * 64},
        "versions": {"lfpc-rewards": "0.1.0", "trl": "1.16.0", "vllm": None, "commit": "c" * 40},
        "finished": finished,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    lines = [{"step": step, **FIGURES, "accuracy": step / 10} for step in range(1, 8)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("checkpoint-7", "trajectories", "adapter"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("x")
    (folder / "training_args.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture(scope="module")
def base(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "Small-VL"
    shutil.copytree(model_dir, folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Small-VL\n")
    return folder


@pytest.fixture(scope="module")
def stage2(model_dir, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    stage1 = make_run(folder / "stage1", model_dir, base, stage=1)
    return make_run(folder / "stage2", model_dir, stage1, stage=2)


@pytest.fixture(scope="module")
def exported(stage2, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "looks-closer"
    assert cli.main(["export", "--model", str(stage2), "--output", str(output)]) == 0
    return output


def head_and_body(card):
    _, head, body = card.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_model_and_its_card_are_all_that_it_holds(exported):
    names = {path.name for path in exported.iterdir()}
    assert names <= {
        *("README.md", "config.json", "generation_config.json", "model.safetensors", "chat_template.jinja"),
        *("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json"),
    }
    assert {"README.md", "model.safetensors", "preprocessor_config.json"} <= names
    assert (exported / "model.safetensors").stat().st_nlink == 1  # a copy, which may be sent away


def test_stock_tools_load_it_with_the_behaviour_of_the_trainer(exported, family):
    assert planned_changes(exported) == []
    assert AutoTokenizer.from_pretrained(exported).chat_template
    assert AutoModelForImageTextToText.from_pretrained(exported).config.model_type in (
        "qwen2_5_vl",
        "qwen3_vl",
    )


def test_the_card_tells_the_whole_way_and_no_path(exported, stage2, base):
    card = (exported / "README.md").read_text()
    head, body = head_and_body(card)
    assert (head["license"], head["base_model"], head["pipeline_tag"]) == (
        "apache-2.0",
        "Small-VL",
        "image-text-to-text",
    )
    assert "| 1 | lfpc, stage 1 | 1,200 | 7 | 8 | accuracy 0.8, format 0.2, tool 1.2 |" in body
    assert "| 2 | lfpc, stage 2 | 2,400 | 7 | 8 | accuracy 0.8, format 0.2, tool 1.2, grounding" in body
    assert "| `accuracy` | 0.700 |" in body
    assert "`iou`" not in body  # it had none
    assert "vllm serve looks-closer --enable-auto-tool-choice --tool-call-parser hermes" in body
    assert "not known" not in body
    for folder in (stage2, base, exported):
        assert str(folder.parent) not in card


@pytest.mark.parametrize(
    ("family", "parser"),
    [("qwen2_5_vl", "hermes"), ("qwen3_vl_moe", "hermes"), ("qwen3_5", "qwen3_coder"), ("glm46v", "glm45")],
)
def test_vllm_reads_the_calls_that_the_family_writes(family, parser):
    [found] = [each for each in FAMILIES if each.model_type == family]
    assert export.serve_command("x", found).endswith(
        f" x --enable-auto-tool-choice --tool-call-parser {parser}"
    )


def test_the_recipe_on_the_card_is_a_recipe(exported, tmp_path):
    text = re.search(r"```yaml\n(.*?)\n```", (exported / "README.md").read_text(), re.DOTALL)[1]
    (tmp_path / "recipe.yaml").write_text(text + "\n")
    assert load_recipe(tmp_path / "recipe.yaml").flat() == yaml.safe_load(text)


def test_where_the_start_is_gone_its_licence_is_not_made_up(model_dir, tmp_path):
    run = make_run(tmp_path / "run", model_dir, tmp_path / "gone", stage=1)
    export.export_model(run, tmp_path / "out")
    head, body = head_and_body((tmp_path / "out" / "README.md").read_text())
    assert (head["license"], head["base_model"]) == ("other", "gone")
    assert "is unknown; state it before you publish" in body


@pytest.mark.parametrize(
    "card", ["# no head", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: [mit]\n---\n"]
)
def test_a_card_without_a_licence_names_none(tmp_path, card):
    (tmp_path / "README.md").write_text(card)
    assert export.licence_of(tmp_path) is None


def test_figures_of_an_evaluation_stand_on_the_card(stage2, tmp_path):
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "tables.md").write_text("# Evaluation of x\n\n## Accuracy\n\n| a |\n| --- |\n| 0.61 |\n")
    export.export_model(stage2, tmp_path / "out", evaluation=evaluation)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Evaluation\n\n### Accuracy\n\n| a |" in card
    assert "# Evaluation of x" not in card


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "manifest.json").unlink(), "must be the output directory of lfpc train"),
        (lambda run: (run / "manifest.json").write_text("{"), "manifest.json: not readable"),
        (lambda run: (run / "model.safetensors").unlink(), "holds only pickled weights"),
    ],
)
def test_what_is_no_finished_training_is_one_line_and_leaves_nothing(
    stage2, tmp_path, capsys, damage, message
):
    run = shutil.copytree(stage2, tmp_path / "run")
    damage(run)
    assert cli.main(["export", "--model", str(run), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_training_that_goes_on_is_not_exported(model_dir, base, tmp_path, capsys):
    run = make_run(tmp_path / "run", model_dir, base, stage=1, finished=False)
    assert cli.main(["export", "--model", str(run), "--output", str(tmp_path / "out")]) == 2
    assert "the training is not finished; continue it with --resume" in capsys.readouterr().err
    found = ["--model", str(run), "--output", str(tmp_path / "out"), "--evaluation", str(tmp_path / "none")]
    assert cli.main(["export", *found]) == 2


def test_a_misspelt_path_or_option_is_named_with_what_was_probably_meant(stage2, tmp_path, capsys):
    assert cli.main(["export", "--model", str(stage2)[:-1], "--output", str(tmp_path / "out")]) == 2
    assert "no such directory" in capsys.readouterr().err
    assert cli.main(["export", "--modle", str(stage2)]) == 2
    assert "unrecognized arguments: --modle" in (said := capsys.readouterr().err)
    assert "did you mean --model?" in said
