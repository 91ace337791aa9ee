"""Engine and trainer must mean the same: real trainings of a tiny model, and engines whose words are off."""

import math
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig

from lfpc_trl.data.rows import read_rows
from lfpc_trl.errors import UserError
from lfpc_trl.runs import directory as run_directory
from lfpc_trl.train import run
from lfpc_trl.train.agreement import (
    DIFFERENCE,
    RATIO_MAX,
    RATIO_MIN,
    AgreementWatch,
    Comparison,
    LogprobRecorder,
)
from lfpc_trl.train.recipe import load_recipe
from tests import tiny
from tests.train.scripted import make_trainer
from tests.train.test_trainer import ANSWER, colocate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]
SMALL = {
    "learning_rate": 1e-3,
    "crop_tokens": 8,
    "response_tokens": 40,
    "trajectory_tokens": 120,
    "save_every": 100,
    "threads": 1,
}


@pytest.fixture(scope="module")
def one_rows(tmp_path_factory):
    return read_rows(tiny.make_rows(tmp_path_factory.mktemp("rows")))


@pytest.fixture(scope="module")
def one_taught_dir(one_rows, tmp_path_factory):
    """One family: nothing here differs between them."""
    folder = tiny.make_model(tmp_path_factory.mktemp("taught"), "qwen2_5_vl", chat_template=tiny.COMPACT)
    tiny.teach(folder, one_rows)
    return folder


def recipe(**changes):
    return load_recipe("cpu-stage2", **SMALL | changes)


def recorded_off_by(nats, monkeypatch):
    """The recorded log-probabilities of the engine are wrong by so many nats."""
    plain = LogprobRecorder.logps
    monkeypatch.setattr(
        LogprobRecorder,
        "logps",
        lambda recorder, turns: [[each + nats for each in turn] for turn in plain(recorder, turns)],
    )


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_transformers_and_the_trainer_agree_in_every_step(one_taught_dir, one_rows, tmp_path, temperature):
    """Turns behind crops too, and at any temperature; several updates change the model meanwhile."""
    settings = recipe(steps=2, temperature=temperature, prompts_per_update=1)
    lines = run.train(settings, one_taught_dir, one_rows, tmp_path / "run").metrics
    assert sum(line["tool_calls"] for line in lines) > 0
    for line in lines:
        assert 0 < line[DIFFERENCE] < 1e-4
        assert 0.999 < line[RATIO_MIN] <= 1 <= line[RATIO_MAX] < 1.001


@pytest.mark.parametrize(("nats", "starts"), [(0.0005, True), (-0.002, False)])
def test_a_run_starts_with_an_engine_that_agrees(
    one_taught_dir, one_rows, tmp_path, monkeypatch, nats, starts
):
    recorded_off_by(nats, monkeypatch)
    if starts:
        run.train(recipe(steps=1), one_taught_dir, one_rows, tmp_path / "run")
        return
    wanted = r"must give .* the same .* at most 0\.001, got 0\.002 over \d+ tokens \(ratios 1 to 1\)"
    with pytest.raises(UserError, match=wanted):
        run.train(recipe(steps=1), one_taught_dir, one_rows, tmp_path / "run")
    assert run_directory.read_metrics(tmp_path / "run") == []


def test_a_run_does_not_start_with_an_engine_that_gives_nothing_to_compare(
    one_taught_dir, one_rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(LogprobRecorder, "logps", lambda _, turns: [[math.nan] * len(turn) for turn in turns])
    with pytest.raises(
        UserError, match=r"must return the log-probability of every generated token, got none"
    ):
        run.train(recipe(steps=1), one_taught_dir, one_rows, tmp_path / "run")


def test_a_run_stops_and_is_saved_after_three_steps_with_an_engine_that_is_off(
    one_taught_dir, one_rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(run.EngineCheck, "on_train_begin", lambda *_, **__: None)  # it would start no run
    recorded_off_by(0.3, monkeypatch)
    reason = (
        r"stopped and saved after step 3: .* more than 0\.2 nats per token for 3 steps, most recently by 0\.3"
    )
    with pytest.raises(UserError, match=reason):
        run.train(recipe(steps=9), one_taught_dir, one_rows, tmp_path / "run")
    assert [line[DIFFERENCE] > 0.2 for line in run_directory.read_metrics(tmp_path / "run")] == [True] * 3
    assert run_directory.last_step(tmp_path / "run") == 3
    assert not run_directory.read_manifest(tmp_path / "run")["finished"]


def test_only_steps_in_a_row_stop_a_run():
    watch, stopped = AgreementWatch(), []
    for found in (0.3, 0.3, 0.2, None, 0.3, 0.3, 0.3, 0.1):
        control = SimpleNamespace(should_save=False, should_training_stop=False)
        watch.on_log(None, None, control, {} if found is None else {DIFFERENCE: found})
        assert control.should_save == control.should_training_stop
        stopped.append(control.should_save)
    assert stopped == [False] * 6 + [True, False]


def test_the_check_leaves_no_trace(one_taught_dir, one_rows, tmp_path, monkeypatch):
    plain = run.train(recipe(steps=2), one_taught_dir, one_rows, tmp_path / "with").metrics
    monkeypatch.setattr(run.EngineCheck, "on_train_begin", lambda *_, **__: None)
    assert run.train(recipe(steps=2), one_taught_dir, one_rows, tmp_path / "without").metrics == plain


@pytest.mark.parametrize("correction", [True, False])
def test_vllm_has_the_same_curves_whatever_the_correction_is(
    one_taught_dir, one_rows, tmp_path, monkeypatch, correction
):
    """An engine that claims to be certain of every token: the difference is all that the model doubts."""
    trainer = make_trainer(one_taught_dir, one_rows[:1], tmp_path, [[ANSWER]] * 4)
    monkeypatch.setattr(
        type(trainer), "_generate_single_turn", type(trainer).__bases__[0]._generate_single_turn
    )
    colocate(trainer, trainer.script, monkeypatch)
    trainer.vllm_importance_sampling_correction = correction
    trainer.vllm_importance_sampling_mode = "sequence_mask"
    trainer.vllm_importance_sampling_clip_min, trainer.vllm_importance_sampling_clip_max = None, 3.0
    trainer.train()
    [logs] = [logs for logs in trainer.state.log_history if "reward" in logs]
    assert logs[RATIO_MIN] < logs[RATIO_MAX] <= 1
    assert logs[DIFFERENCE] > 0.1
    if correction:  # TRL counts it too, then
        assert logs["sampling/sampling_logp_difference/mean"] == pytest.approx(logs[DIFFERENCE], rel=0.02)


class Gathering:
    """An accelerator of two processes; the other has found nothing."""

    device = "cpu"

    def gather(self, mine):
        return torch.cat([mine, torch.tensor([[0.0, 0.0, math.inf, -math.inf]])])


def test_tokens_are_compared_where_both_have_something_to_say():
    own = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
    written = torch.tensor([[-1.5, -2.0, math.nan, -9.0]])
    comparison = Comparison()
    comparison.add(own, written, torch.tensor([[1, 1, 1, 0]]))
    found = comparison.result(Gathering())
    assert (found.tokens, found.difference) == (2, 0.25)
    assert (found.ratio_min, found.ratio_max) == (1.0, pytest.approx(math.exp(0.5)))
    assert comparison.result(Gathering()) is None


def test_dropout_of_an_adapter_is_no_disagreement(one_taught_dir, one_rows, tmp_path):
    adapter = LoraConfig(lora_dropout=0.5, init_lora_weights=False, target_modules=["q_proj", "v_proj"])
    trainer = make_trainer(one_taught_dir, one_rows[:1], tmp_path, peft_config=adapter)
    assert trainer.compare_engines().difference < 1e-4
    dropouts = [module for module in trainer.model.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts
    assert all(module.training for module in dropouts) == trainer.model.training


def test_nothing_is_compared_where_no_step_is_left():
    trainer = SimpleNamespace(
        compare_engines=lambda: pytest.fail("a run that is resumed at its end writes nothing")
    )
    state = SimpleNamespace(global_step=3, max_steps=3)
    run.EngineCheck(trainer).on_train_begin(None, state, None)
