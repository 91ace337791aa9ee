"""Real trainings of tiny models, both families: two stages, interruption, resumption."""

import dataclasses
import json
import math
import shutil

import pytest
from safetensors.torch import load_file

from lfpc_trl import cli
from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import UserError
from lfpc_trl.models.processors import load_processor
from lfpc_trl.models.weights import load_model
from lfpc_trl.runs import directory as run_directory
from lfpc_trl.train import run
from lfpc_trl.train.recipe import load_recipe

SMALL = {
    "steps": 4,
    "learning_rate": 1e-3,
    "crop_tokens": 8,
    "response_tokens": 40,
    "trajectory_tokens": 120,
    "save_every": 1,
    "threads": 1,
}


def recipe(stage=2, **changes):
    return load_recipe(f"cpu-stage{stage}", **SMALL | changes)


STAGE_2 = recipe()
OPTIONS = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")


class StoppedError(Exception):
    """Stands for a kill."""


def weights(folder):
    return load_file(folder / "model.safetensors")


def same_weights(first, second):
    before, after = weights(first), weights(second)
    return before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)


@pytest.fixture(scope="module")
def finished(taught_dir, rows, tmp_path_factory):
    """A whole stage 2 run, never interrupted; read only."""
    output, seen = tmp_path_factory.mktemp("finished") / "run", []
    result = run.train(STAGE_2, taught_dir, rows, output, on_step=lambda *step: seen.append(step))
    return result, seen


@pytest.mark.slow
def test_a_run_logs_every_step_and_leaves_a_model(finished, taught_dir):
    result, seen = finished
    assert [(step, total) for step, total, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [line for *_, line in seen] == result.metrics == run_directory.read_metrics(result.output_dir)
    assert {"step", "reward", "accuracy", "format", "tool_bonus", "grounding", *run.METRICS} <= set(
        seen[0][2]
    )
    # Crops reached the trainer and were scored.
    assert sum(line["tool_calls"] for line in result.metrics) > 1
    assert any(line["grad_norm"] > 0 for line in result.metrics)
    for line in result.metrics:
        total = 0.8 * line["accuracy"] + 0.2 * line["format"] + 1.2 * line["tool_bonus"] + line["grounding"]
        assert line["reward"] == pytest.approx(total, abs=1e-5)
        assert all(value is None or math.isfinite(value) for value in line.values())
    assert not same_weights(result.output_dir, taught_dir)
    manifest = json.loads((result.output_dir / "manifest.json").read_text())
    assert manifest["finished"] is True
    assert manifest["recipe"] == STAGE_2.flat()
    assert manifest["versions"]["trl"]


@pytest.mark.slow
def test_the_trained_directory_is_a_model_directory_like_the_first(finished, taught_dir):
    output = finished[0].output_dir
    assert load_processor(output).chat_template == load_processor(taught_dir).chat_template
    load_model(output)
    for name in ("preprocessor_config.json", "tokenizer.json"):
        assert (output / name).read_bytes() == (taught_dir / name).read_bytes()
    assert not (output / "training_args.bin").exists()
    assert not (output / "README.md").exists()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_model(finished, taught_dir, rows, tmp_path):
    output = tmp_path / "run"
    # Before the first checkpoint, at the end of the first epoch (two steps), inside the second.
    for stop_at in (1, 3, 4):

        def stop(step, total, metrics, stop_at=stop_at):
            if step == stop_at:
                raise StoppedError

        with pytest.raises(StoppedError):
            run.train(STAGE_2, taught_dir, rows, output, on_step=stop, resume=stop_at > 1)
        assert run_directory.last_step(output) == stop_at - 1
        # What a kill in the middle of writing leaves behind.
        (output / "checkpoint-9").mkdir(exist_ok=True)
        with (output / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "rew')
    resumed = run.train(STAGE_2, taught_dir, rows, output, resume=True)
    assert same_weights(resumed.output_dir, finished[0].output_dir)
    assert (output / "metrics.jsonl").read_text() == (finished[0].output_dir / "metrics.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}], ids=["full", "lora"]
)
def test_a_run_killed_behind_its_last_step_trains_no_further_one(
    changes, taught_dir, rows, tmp_path, monkeypatch
):
    def killed(*_):
        raise StoppedError

    small, output, seen = recipe(steps=3, **changes), tmp_path / "run", []  # inside an epoch of two steps
    whole = run.train(small, taught_dir, rows, tmp_path / "whole").output_dir
    with monkeypatch.context() as patch:
        # The last thing before the manifest says that the run is finished.
        patch.setattr(shutil, "copy2", killed)
        with pytest.raises(StoppedError):
            run.train(small, taught_dir, rows, output)
    assert run_directory.last_step(output) == 3
    result = run.train(small, taught_dir, rows, output, resume=True, on_step=lambda *step: seen.append(step))
    assert seen == []
    assert same_weights(result.output_dir, whole)
    assert (output / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert run_directory.read_manifest(output)["finished"] is True


@pytest.mark.slow
def test_the_command_trains_stage_1_then_stage_2_from_its_model(taught_dir, data_file, tmp_path, capsys):
    common = ["--data", str(data_file), "--shown-tokens", "12", *OPTIONS, "--steps", "1"]
    first = ["train", "--config", "cpu-stage1", "--model", str(taught_dir), "--output", str(tmp_path / "one")]
    second = [
        *("train", "--config", "cpu-stage2", "--model", str(tmp_path / "one")),
        *("--output", str(tmp_path / "two")),
    ]
    first, second = [*first, *common], [*second, *common]
    assert cli.main(first) == 0
    assert cli.main(second) == 0
    output = capsys.readouterr()
    assert output.out.count("step 1/1  reward ") == 2
    assert output.err == ""
    assert run_directory.read_metrics(tmp_path / "one")[0]["grounding"] is None
    assert run_directory.read_metrics(tmp_path / "two")[0]["grounding"] is not None
    # The second run's directory must not hold the first run's story.
    assert json.loads((tmp_path / "two" / "manifest.json").read_text())["stage"] == 2
    assert cli.main(first) == 2
    assert f"{tmp_path / 'one'}: already holds a run" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(taught_dir, data_file, tmp_path, capsys, monkeypatch):
    def press(step, total, metrics, pace):
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("lfpc_trl.commands.train.print_step", press)
    arguments = ["train", "--config", "cpu-stage1", "--model", str(taught_dir), "--data", str(data_file)]
    assert cli.main([*arguments, "--output", str(tmp_path / "run"), *OPTIONS]) == 130
    assert capsys.readouterr().err == "lfpc: interrupted; saved up to step 1, go on with --resume\n"


@pytest.mark.slow
def test_several_updates_per_step_give_one_line_per_step(taught_dir, rows, tmp_path):
    small = recipe(1, prompts_per_update=1, steps=2, save_every=2)
    result = run.train(small, taught_dir, rows, tmp_path / "run")
    assert [line["step"] for line in result.metrics] == [1, 2]
    assert all(line["reward"] is not None for line in result.metrics)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-4"]
    assert run_directory.last_step(tmp_path / "run") == 2


@pytest.mark.slow
def test_the_stock_model_of_each_family_trains(model_dir, rows, tmp_path):
    """With our whole template; its random weights make no call."""
    small = recipe(steps=1, response_tokens=8)
    result = run.train(small, model_dir, rows, tmp_path / "run")
    assert result.metrics[0]["format"] == -1
    assert result.metrics[0]["iou"] is None


# --- refusals, before anything is trained ------------------------------------------------------------


def refused(message, *arguments, **options):
    with pytest.raises(UserError, match=message):
        run.train(*arguments, **options)


def test_an_output_directory_with_other_things_is_refused(model_dir, rows, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    refused("must be new or empty", STAGE_2, model_dir, rows, tmp_path)
    refused("must be new or empty", STAGE_2, model_dir, rows, tmp_path / "notes.txt")
    refused("no run to resume", STAGE_2, model_dir, rows, tmp_path, resume=True)


def test_a_damaged_manifest_is_named(model_dir, rows, tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    refused("manifest.json: not readable", STAGE_2, model_dir, rows, tmp_path, resume=True)


def test_rows_that_do_not_fit_the_stage_are_refused(model_dir, rows, tmp_path):
    unseen = [dataclasses.replace(rows[0], shown_size=None), *rows[1:]]
    refused(
        "rows.jsonl row 1: no shown_size; .* select-resolution.* --shown-tokens",
        STAGE_2,
        model_dir,
        unseen,
        tmp_path,
    )
    bare = [*rows[:-1], dataclasses.replace(rows[-1], regions=None)]
    refused("rows.jsonl row 4: the grounding reward needs targets", STAGE_2, model_dir, bare, tmp_path)
    crooked = [dataclasses.replace(rows[0], shown_size=(100, 84)), *rows[1:]]
    refused("rows.jsonl row 1: shown_size must be multiples of", STAGE_2, model_dir, crooked, tmp_path)
    refused("prompts_per_step must be at most the 1 rows, got 2", STAGE_2, model_dir, rows[:1], tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_resuming_something_else_is_refused(finished, taught_dir, rows, tmp_path):
    output = finished[0].output_dir
    other = recipe(learning_rate=1e-4)
    refused("learning_rate was 0.001 and is 0.0001", other, taught_dir, rows, output, resume=True)
    refused("stage was 2 and is 1", recipe(1), taught_dir, rows, output, resume=True)
    changed = [dataclasses.replace(rows[0], answer=("B",)), *rows[1:]]
    refused("data: sha256 was", STAGE_2, taught_dir, changed, output, resume=True)
    shutil.copytree(taught_dir, tmp_path / "other")
    with (tmp_path / "other" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    refused("started from another model", STAGE_2, tmp_path / "other", rows, output, resume=True)


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(finished, taught_dir, rows):
    before = (finished[0].output_dir / "model.safetensors").stat().st_mtime_ns
    again = run.train(STAGE_2, taught_dir, rows, finished[0].output_dir, resume=True)
    assert again.metrics == finished[0].metrics
    assert (again.output_dir / "model.safetensors").stat().st_mtime_ns == before


def test_the_rows_of_a_run_can_come_from_parquet(data_file, tmp_path):
    from lfpc_trl.data.rows import rows_digest, write_rows

    rows = read_rows(data_file)
    write_rows(rows, tmp_path / "rows.parquet")
    assert rows_digest(read_rows(tmp_path / "rows.parquet")) == rows_digest(rows)


def test_a_finished_run_whose_weights_are_gone_is_no_trained_model(finished, taught_dir, rows, tmp_path):
    output = shutil.copytree(finished[0].output_dir, tmp_path / "out")
    (output / "model.safetensors").unlink()
    refused("holds no weights", STAGE_2, taught_dir, rows, output, resume=True)


def test_what_a_kill_left_in_a_checkpoint_is_removed(tmp_path):
    left = [tmp_path / ".tmpAbC1", tmp_path / "checkpoint-2" / ".tmpAbC2", tmp_path / "adapter" / ".tmpAbC3"]
    for path in (*left, tmp_path / "checkpoint-2" / "model.safetensors"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    run_directory.clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["model.safetensors"]
