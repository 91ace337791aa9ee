"""What a run of days rests on: a kill, a resumption, several processes, adapters, the way to stage 2."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lfpc_trl.errors import UserError
from lfpc_trl.models import families, weights
from lfpc_trl.models.prepare import prepare_model
from lfpc_trl.runs import directory as run_directory
from lfpc_trl.train import run
from lfpc_trl.train.recipe import load_recipe
from tests.train.test_train import SMALL, same_weights

ROOT = Path(__file__).parents[2]
LORA = {
    "use_peft": True,
    "lora_r": 4,
    "lora_dropout": 0.0,
    "lora_target_modules": [r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj"],
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::ResourceWarning"),
]


def recipe(stage=1, **changes):
    return load_recipe(f"cpu-stage{stage}", **SMALL | changes)


def environment():
    path = os.pathsep.join([str(ROOT), str(ROOT / "integrations"), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def command(model, data, output, *options):
    small = [part for name, value in SMALL.items() for part in (f"--{name}", str(value))]
    return [
        *(sys.executable, "-m", "lfpc_trl.cli", "train", "--config", "cpu-stage1", *small),
        *("--model", str(model), "--data", str(data), "--output", str(output), *options),
    ]


@pytest.fixture(scope="module")
def finished(taught_dir, rows, tmp_path_factory):
    """A run that nobody disturbed."""
    return run.train(recipe(), taught_dir, rows, tmp_path_factory.mktemp("finished") / "run").output_dir


# --- kill -9 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_a_run_killed_at_any_moment_and_resumed_ends_as_if_nothing_had_happened(
    finished, taught_dir, data_file, tmp_path
):
    output = tmp_path / "run"
    # Once by the clock, wherever that falls; once in the step after the second line of figures.
    for lines, patience in ((0, 4.0), (2, 0.05)):
        resume = ["--resume"] if (output / "manifest.json").exists() else []
        words = command(taught_dir, data_file, output, *resume)
        process = subprocess.Popen(
            words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and len(run_directory.read_metrics(output)) < lines:
            time.sleep(0.01)
        time.sleep(patience)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not run_directory.read_manifest(output)["finished"]
    words = command(taught_dir, data_file, output, "--resume")
    subprocess.run(words, env=environment(), check=True, capture_output=True)
    assert same_weights(output, finished)
    assert (output / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()


# --- adapters ----------------------------------------------------------------------------------------


def test_an_adapter_is_trained_interrupted_resumed_and_merged(taught_dir, rows, tmp_path):
    whole = run.train(recipe(**LORA), taught_dir, rows, tmp_path / "whole").output_dir

    def stop(step, total, metrics):
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run.train(recipe(**LORA), taught_dir, rows, tmp_path / "run", on_step=stop)
    assert run_directory.last_step(tmp_path / "run") == 2
    resumed = run.train(recipe(**LORA), taught_dir, rows, tmp_path / "run", resume=True).output_dir
    adapters = [load_file(each / "adapter" / "adapter_model.safetensors") for each in (whole, resumed)]
    assert all((adapters[0][name] == adapters[1][name]).all() for name in adapters[0])
    assert same_weights(whole, resumed)
    # The merged model is the base with something added to the language model's layers and nothing else.
    before, after = weights.load_model(taught_dir).state_dict(), weights.load_model(whole).state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("language_model" in name and "_proj" in name for name in changed)


def test_stage_2_goes_on_from_the_merged_model_of_an_adapter(taught_dir, rows, tmp_path):
    first = run.train(recipe(steps=1, **LORA), taught_dir, rows, tmp_path / "one")
    second = run.train(recipe(2, steps=1, **LORA), first.output_dir, rows, tmp_path / "two")
    assert second.metrics[0]["grounding"] is not None
    # The first run's figures and adapter stay where they were made.
    assert len(second.metrics) == 1
    assert (second.output_dir / "adapter" / "adapter_model.safetensors").is_file()


# --- several processes -------------------------------------------------------------------------------

WATCHED = """
import json, os, sys
from pathlib import Path
from lfpc_trl.cli import main
from lfpc_trl.train import run

seen = []
log, save = run._StepLog.on_log, run._save_model


def on_log(self, args, state, control, logs=None, **more):
    if logs and "reward" in logs:
        seen.extend([logs["reward"], logs["rewards/accuracy/mean"], logs["rewards/tool_bonus/mean"]])
    return log(self, args, state, control, logs=logs, **more)


def save_model(trainer, *arguments):
    sums = [float(weight.double().sum()) for weight in trainer.model.parameters()]
    found = {"rewards": seen, "sums": sums, "world": trainer.accelerator.num_processes}
    Path(os.environ["SEEN"], os.environ.get("RANK", "0") + ".json").write_text(json.dumps(found))
    return save(trainer, *arguments)


run._StepLog.on_log, run._save_model = on_log, save_model
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)
def test_two_processes_get_the_same_rewards_and_stay_in_step(taught_dir, data_file, tmp_path):
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    # So cold that every draw is the likeliest token: the rollouts do not depend on who makes them.
    cold = ["--temperature", "0.0001", "--per_device_train_batch_size", "2", "--steps", "2"]
    found = {}
    for processes in (1, 2):
        seen = tmp_path / f"seen{processes}"
        seen.mkdir()
        program = command(taught_dir, data_file, tmp_path / f"run{processes}", *cold)[3:]
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
        words = [sys.executable, *(launcher if processes == 2 else []), str(script), *program]
        done = subprocess.run(
            words, env=environment() | {"SEEN": str(seen)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found[processes] = [json.loads(path.read_text()) for path in sorted(seen.iterdir())]
    [alone], [first, second] = found[1], found[2]
    assert (alone["world"], first["world"], second["world"]) == (1, 2, 2)
    assert first["sums"] == second["sums"]
    assert first["rewards"] == second["rewards"]
    assert first["rewards"] == pytest.approx(alone["rewards"], abs=1e-6)
    assert sum(alone["rewards"][2::3]) > 0  # crops came back and were rewarded
    assert first["sums"] == pytest.approx(alone["sums"], rel=1e-3)
    assert run_directory.read_manifest(tmp_path / "run2")["processes"] == 2


# --- what a model has learned to expect --------------------------------------------------------------


def test_stage_2_refuses_a_model_that_learned_another_conversation(finished, taught_dir, rows, tmp_path):
    with pytest.raises(UserError, match="was trained with crop_tokens 8, the recipe has 16"):
        run.train(recipe(2, crop_tokens=16), finished, rows, tmp_path / "two")
    with pytest.raises(UserError, match="was trained with max_turns 5, the recipe has 3"):
        run.train(recipe(2, max_turns=3), finished, rows, tmp_path / "two")


def test_stage_2_refuses_a_run_that_is_not_finished(finished, rows, tmp_path):
    manifest = run_directory.read_manifest(finished)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").write_bytes((finished / "config.json").read_bytes())
    run_directory.write_json(tmp_path / "one" / "manifest.json", manifest | {"finished": False})
    with pytest.raises(UserError, match="one: its training is not finished; continue it with --resume"):
        run.train(recipe(2), tmp_path / "one", rows, tmp_path / "two")


def test_a_frame_that_is_not_the_familys_is_refused(taught_dir, rows, tmp_path):
    own = families.family_of(taught_dir).frame.value
    other = {"shown": "relative_1000", "relative_1000": "shown"}[own]
    with pytest.raises(UserError, match=f"frame is {other}, but Qwen.* writes boxes in {own}"):
        run.train(recipe(frame=other), taught_dir, rows, tmp_path / "run")
    run.check(recipe(frame=own), taught_dir, rows)


def test_packages_that_a_recipe_needs_are_named_before_anything_is_loaded(
    taught_dir, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr("importlib.util.find_spec", {}.get)
    for changes, message in (
        ({"use_vllm": True, "use_cpu": False}, "use_vllm needs the package vllm"),
        ({"use_peft": True}, "use_peft needs the package peft"),
        ({"report_to": ["trackio"]}, "report_to trackio needs the package trackio"),
    ):
        with pytest.raises(UserError, match=f"{message}, which is not installed"):
            run.train(recipe(**changes), taught_dir, rows, tmp_path / "run")


def test_a_vllm_that_trl_does_not_know_is_refused(taught_dir, rows, tmp_path, monkeypatch):
    versions = {"vllm": "0.33.0"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    with pytest.raises(UserError, match=r"vllm must be >=0.22.0,<=0.31.0, got 0.33.0"):
        run.train(recipe(use_vllm=True, use_cpu=False), taught_dir, rows, tmp_path / "run")


def test_a_resumption_on_another_number_of_processes_is_refused(finished, taught_dir, rows, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="cannot resume, processes was 1 and is 2"):
        run.train(recipe(), taught_dir, rows, finished, resume=True)


def test_vllm_gets_a_prepared_model_and_leaves_one(taught_dir, rows, tmp_path):
    with pytest.raises(UserError, match=r"these differ from what the trainer does .*lfpc prepare-model"):
        run.check_prepared(taught_dir)
    prepare_model(taught_dir, tmp_path / "prepared")
    run.check_prepared(tmp_path / "prepared")
    result = run.train(recipe(steps=1), tmp_path / "prepared", rows, tmp_path / "one")
    run.check_prepared(result.output_dir)
