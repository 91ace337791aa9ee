"""A training run of one stage: takes a model directory and rows, writes a model directory.

The output is a Hugging Face directory with the processor files of the starting model, so it loads wherever
that one does; the other files of a run are described in `lfpc_trl.runs.directory`.
"""

import contextlib
import importlib.util
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import is_peft_model
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from lfpc_rewards import Frame
from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError
from lfpc_trl.files import atomic_file
from lfpc_trl.locus.cues import check_cue
from lfpc_trl.locus.task import CuePrompt
from lfpc_trl.models import families, processors, weights
from lfpc_trl.models.engines import check_vllm
from lfpc_trl.models.prepare import planned_changes
from lfpc_trl.models.vllm_failures import vllm_failures
from lfpc_trl.rollouts.crop_tool import environment_factories, environment_name
from lfpc_trl.rollouts.judge import VERDICTS, Judge
from lfpc_trl.rollouts.prompts import Message, build_prompt
from lfpc_trl.rollouts.rewards import METRICS, SEVERAL_METRICS
from lfpc_trl.rollouts.transcript import ENDINGS
from lfpc_trl.runs import directory as run_directory
from lfpc_trl.runs.directory import MANIFEST
from lfpc_trl.runs.trajectories import DIRECTORY as TRAJECTORIES
from lfpc_trl.runs.trajectories import TrajectoryLog
from lfpc_trl.train.agreement import DIFFERENCE, RATIO_MAX, RATIO_MIN, AgreementWatch, EngineCheck
from lfpc_trl.train.alerts import ALERT, ToolUseAlert
from lfpc_trl.train.own import check_rewards, open_judge, own_code
from lfpc_trl.train.preflight import PreflightReport, preflight
from lfpc_trl.train.recipe import Recipe, processes_now
from lfpc_trl.train.sharding import allow_numbered_cpus, check_engine, unsharded_models
from lfpc_trl.train.trainer import RolloutTrainer

OnStep = Callable[[int, int, dict[str, Any]], object]
"""Called after every step with its number, the number of steps, and the line of `metrics.jsonl`."""

_TRL_NAMES = {
    "reward": "reward",
    "reward_std": "reward_std",
    "accuracy": "rewards/accuracy/mean",
    "format": "rewards/format/mean",
    "tool_bonus": "rewards/tool_bonus/mean",
    "grounding": "rewards/grounding/mean",
    **{name: name for name in METRICS},
    **{f"endings/{name}": f"endings/{name}" for name in ENDINGS},
    "completion_tokens": "completions/mean_length",
    "clipped_ratio": "completions/clipped_ratio",
    "entropy": "entropy",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    **{name: name for name in (DIFFERENCE, RATIO_MIN, RATIO_MAX)},
    **{f"judge/{name}": f"judge/{name}" for name in (*VERDICTS, "cost")},
}
"""Names in `metrics.jsonl` and in TRL's logs. Without timings, so that equal runs write equal files."""
_NOT_COPIED = (".safetensors", ".gguf", ".md", ".index.json", ".jsonl", ".tmp", ".py", *weights.PICKLED)
_CONVERSATION = ("max_turns", "max_crops", "crop_tokens", "min_side")
"""Settings of the crop tool that a model is trained on; stage 2 must keep those of stage 1."""
_DTYPES: dict[str, Any] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "auto": "auto",
}
_REPORTERS = ("trackio", "wandb", "tensorboard", "swanlab", "mlflow")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bars and a warning that users cannot act on."""
    with weights.no_progress_bars(), warnings.catch_warnings():
        # TRL 1.16 uses an attribute that transformers 5.23 has deprecated, in every step.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


@dataclass(frozen=True)
class TrainResult:
    """A finished run.

    Attributes:
        output_dir: the trained model's directory.
        steps: steps of the run.
        metrics: the lines of `metrics.jsonl`, one per step.
    """

    output_dir: Path
    steps: int
    metrics: list[dict[str, Any]]


def train(
    recipe: Recipe,
    model_dir: str | Path,
    rows: Sequence[Row],
    output_dir: str | Path,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train a model with a recipe.

    With several processes, each calls this with the same arguments.

    Args:
        recipe: from `lfpc_trl.train.recipe.load_recipe`.
        model_dir: a Hugging Face directory of a supported family; for stage 2 the output of stage 1.
        rows: checked rows with `shown_size`, and with targets where the grounding reward has a weight.
        output_dir: a new or empty directory; with `resume`, the directory of the run to resume.
        resume: resume from the last checkpoint, or from the start if there is none. Recipe, rows, model and
            number of processes must be those of the run. A finished run is returned unchanged.
        on_step: called after every step; this function prints nothing.

    Raises:
        UserError: anything the user can fix, before training starts.
    """
    output_dir, model_dir = Path(output_dir), Path(model_dir)
    frame = check(recipe, model_dir, rows)
    manifest = run_directory.new_manifest(
        recipe.flat(),
        model_dir,
        rows,
        model_hash=weights.fingerprint(model_dir),
        frame=frame.value,
        processes=processes_now(),
        code=own_code(recipe.stage),
    )
    checkpoint = None
    if resume:
        if run_directory.check_resumable(output_dir, manifest)["finished"]:
            weights.check_weights(output_dir)  # they may have been moved or deleted since
            return TrainResult(output_dir, recipe.stage.steps, run_directory.read_metrics(output_dir))
        checkpoint = run_directory.last_checkpoint(output_dir)
    elif _is_main_process():  # other processes may already see its files
        run_directory.check_new(output_dir)
    processor = check_before_training(recipe, model_dir, rows)
    if checkpoint is not None:
        allow_numbered_cpus()
    if recipe.stage.threads is not None:
        torch.set_num_threads(recipe.stage.threads)
    updates = 0 if checkpoint is None else run_directory.checkpoint_step(checkpoint)
    done = updates // recipe.stage.updates_per_step()
    with quiet(), vllm_failures(output_dir, "has failed"), open_judge(recipe.stage, output_dir) as judge:
        trainer = _trainer(recipe, frame, processor, model_dir, rows, output_dir, judge)
        check_engine(trainer.accelerator)
        if _is_main_process():
            output_dir.mkdir(parents=True, exist_ok=True)
            run_directory.write_json(output_dir / MANIFEST, manifest)
            run_directory.clear_leftovers(output_dir)
            run_directory.truncate_metrics(output_dir, done)
            _trajectory_log(recipe, output_dir).forget_after(done)
        trainer.epochs_done = done // (len(rows) // recipe.stage.prompts_per_step)
        if recipe.stage.tool_use_alert:
            trainer.add_callback(ToolUseAlert())  # before the step log, which records the alert
        watch = AgreementWatch()
        for callback in (EngineCheck(trainer), _StepLog(output_dir, recipe, on_step), watch):
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if watch.reason:
            step = trainer.state.global_step // recipe.stage.updates_per_step()
            raise UserError(f"{output_dir}: stopped and saved after step {step}: {watch.reason}")
        _save_model(trainer, recipe, model_dir, output_dir)
        trainer.accelerator.end_training()  # closes the reporters and the process group
    if _is_main_process():
        run_directory.write_json(output_dir / MANIFEST, manifest | {"finished": True})
    return TrainResult(output_dir, recipe.stage.steps, run_directory.read_metrics(output_dir))


# --- checks ------------------------------------------------------------------------------------------


def check(
    recipe: Recipe,
    model_dir: Path,
    rows: Sequence[Row],
    *,
    processes: int | None = None,
    installed: bool = True,
) -> Frame:
    """Run all checks that do not need the model's processor or weights.

    Args:
        recipe: the recipe.
        model_dir: the model to start from.
        rows: the rows to train on.
        processes: number of training processes; None for the current number.
        installed: whether to require the packages that the recipe uses.

    Returns:
        The frame of the model's boxes.

    Raises:
        UserError: naming the setting, the row or the file, and the rule.
    """
    recipe.check(processes_now() if processes is None else processes)
    frame = families.family_of(model_dir).resolve_frame(recipe.stage.frame)
    if installed:
        _check_packages(recipe)
    _check_start(recipe, model_dir)
    check_rewards(recipe.stage, rows, frame)
    for row in rows:
        if row.shown_sizes is None:
            raise UserError(
                f"{row.name}: no shown_size; choose it per row with 'lfpc select-resolution' "
                "or one for all rows with --shown-tokens"
            )
        if recipe.stage.grounding_weight and row.regions is None:
            raise UserError(f"{row.name}: the grounding reward needs targets, got none")
        if recipe.stage.method == "locus":
            check_cue(row)
    if len(rows) < recipe.stage.prompts_per_step:
        raise UserError(
            f"prompts_per_step must be at most the {len(rows)} rows, got {recipe.stage.prompts_per_step}"
        )
    return frame


def check_before_training(recipe: Recipe, model_dir: Path, rows: Sequence[Row]) -> Any:
    """Run the checks that need the model's files and processor; return the processor.

    Raises:
        UserError: naming the row, the setting or the file, and the rule.
    """
    weights.check_weights(model_dir)
    if recipe.option("use_vllm"):
        check_prepared(model_dir)
    processor = processors.load_processor(model_dir)
    preflight_of(recipe, model_dir, processor, rows).check()
    return processor


def check_prepared(model_dir: Path) -> None:
    """Check that vLLM, which reads the model's files, would see the same model as the trainer.

    Raises:
        UserError: naming the first difference.
    """
    changes = planned_changes(model_dir)
    if changes:
        raise UserError(
            f"{model_dir}: vLLM reads the files of a model, and these differ from what the trainer does "
            f"({changes[0].file}: {changes[0].what}); run 'lfpc prepare-model' and train the prepared model"
        )


def preflight_of(recipe: Recipe, model_dir: Path, processor: Any, rows: Sequence[Row]) -> PreflightReport:
    """Run the preflight checks of a recipe on the real rows."""
    frame = processor.family.resolve_frame(recipe.stage.frame)
    crops = recipe.stage.crop_settings(frame, processors.factor(processor))
    context = weights.context_length(model_dir)
    if recipe.option("use_vllm") and recipe.option("vllm_max_model_length"):
        context = min(context, recipe.option("vllm_max_model_length"))
    return preflight(
        processor,
        rows,
        crops,
        trajectory_tokens=recipe.stage.trajectory_tokens,
        context=context,
        cues=CuePrompt(crops.frame, crops.factor, crops.crop_tokens)
        if recipe.stage.method == "locus"
        else None,
    )


def _check_packages(recipe: Recipe) -> None:
    reporters = recipe.option("report_to")
    reporters = [reporters] if isinstance(reporters, str) else reporters or []
    needed = {f"report_to {name}": name for name in reporters if name in _REPORTERS}
    needed |= {f"use_{name}": name for name in ("vllm", "peft") if recipe.option(f"use_{name}")}
    for setting, package in needed.items():
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{setting} needs the package {package}, which is not installed")
    if recipe.option("use_vllm"):
        check_vllm(training=True)
        if weights.default_device() == "cpu":
            recipe.check_vllm_on_cpu()


def _check_start(recipe: Recipe, model_dir: Path) -> None:
    """A model trained by lfpc must continue with the tool settings it was trained on."""
    before = run_directory.read_manifest(model_dir)
    if before is None:
        return
    if not before["finished"]:
        raise UserError(f"{model_dir}: its training is not finished; continue it with --resume")
    if before["recipe"].get("method", "lfpc") != recipe.stage.method:
        return  # trained on the other task, so not on these tool settings
    for name in _CONVERSATION:
        was, now = before["recipe"].get(name), getattr(recipe.stage, name)
        if was != now:
            raise UserError(f"{model_dir}: was trained with {name} {was!r}, the recipe has {now!r}")


# --- metrics -----------------------------------------------------------------------------------------


class _StepLog(TrainerCallback):  # type: ignore[misc]
    """Appends a line per step to `metrics.jsonl` and passes it to `on_step`."""

    def __init__(self, output_dir: Path, recipe: Recipe, on_step: OnStep | None) -> None:
        self.output_dir, self.stage, self.on_step = output_dir, recipe.stage, on_step
        self.own = [entry.short for entry in recipe.stage.named_rewards()]

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        if not state.is_world_process_zero or logs is None or "reward" not in logs:
            return  # the summary at the end of a run has no reward
        step = state.global_step // self.stage.updates_per_step()
        line = {"step": step} | {ours: _number(logs.get(trl)) for ours, trl in _TRL_NAMES.items()}
        line |= {f"rewards/{name}": _number(logs.get(f"rewards/{name}/mean")) for name in self.own}
        line |= {name: _number(logs[name]) for name in SEVERAL_METRICS if name in logs}
        if ALERT in logs:
            line[ALERT] = logs[ALERT]
        run_directory.append_metrics(self.output_dir, line)
        if self.on_step is not None:
            self.on_step(step, self.stage.steps, line)


def _number(value: Any) -> float | None:
    """A metric without a value (None or NaN) becomes null, as JSON has no NaN."""
    return None if value is None or math.isnan(float(value)) else float(value)


# --- the trainer -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prompts:
    """Turns row numbers into TRL's columns. Rows stay Python objects, so boxes never go through Arrow."""

    rows: tuple[Row, ...]
    prompt: Callable[[Row], list[Message]]

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        return {
            "prompt": [self.prompt(self.rows[number]) for number in batch["number"]],
            "row": [self.rows[number] for number in batch["number"]],
            # TRL's column: the name of the environment that crops this row's pictures.
            "environment": [environment_name(self.rows[number]) for number in batch["number"]],
        }


@dataclass(frozen=True)
class _ToolPrompt:
    """The LFPC prompt before the environment adds the picture and the question."""

    frame: Frame

    def __call__(self, row: Row) -> list[Message]:
        return build_prompt(self.frame, pictures=len(row.pictures))


class ResumableTrainer(RolloutTrainer):
    """A `RolloutTrainer` that resumes from a checkpoint exactly as if it had not stopped."""

    epochs_done = 0

    def _load_from_checkpoint(self, checkpoint: str, *args: Any) -> None:
        # PEFT and FSDP load adapters and sharded weights correctly. For full weights the trainer would match
        # names in the file with names in the model, which differ for Qwen2.5-VL, and silently continue with
        # untrained weights.
        if self.is_fsdp_enabled or is_peft_model(self.model):
            super()._load_from_checkpoint(checkpoint, *args)
        else:
            self.model.load_state_dict(weights.load_model(checkpoint, dtype=self.model.dtype).state_dict())

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # transformers (5.17 to 5.24) checks only after a step whether all steps are done: a run killed after
        # its last checkpoint would make one extra step when resumed.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*args, **kwargs)
        else:
            self.control.should_training_stop = True

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        # Gathered weights contain tied weights twice, and transformers, which detects them by shared memory,
        # would write both.
        if state_dict is not None:
            tied = getattr(self.accelerator.unwrap_model(self.model), "all_tied_weights_keys", {})
            state_dict = {name: weight for name, weight in state_dict.items() if name not in tied}
        super()._save(output_dir, state_dict)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write no model card: TRL's describes a text model and has no name for a local model."""

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        # All epochs draw their order from one generator: without the draws of the earlier epochs, a resumed
        # run would repeat the order of the first.
        sampler = super()._get_train_sampler(dataset)
        for _ in range(self.epochs_done):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler


def _trainer(
    recipe: Recipe,
    frame: Frame,
    processor: Any,
    model_dir: Path,
    rows: Sequence[Row],
    output_dir: Path,
    judge: Judge | None,
) -> Any:
    crops = recipe.stage.crop_settings(frame, processors.factor(processor), seed=recipe.option("seed"))
    # Before loading the model: DeepSpeed shards weights on loading only if it is configured by then.
    config = recipe.grpo_config(
        output_dir,
        never_sampled=processors.never_sampled(processor, use_vllm=recipe.option("use_vllm")),
        processes=processes_now(),
        cpu=recipe.option("use_cpu") or weights.default_device() == "cpu",
    )
    model = weights.load_model(
        model_dir,
        dtype=_DTYPES[recipe.option("dtype")],
        device=None,  # the trainer moves it, unless it is sharded
        attention=recipe.option("attn_implementation"),
    )
    if processor.family.turn_ends:  # the directory may not list them all; TRL reads them here
        model.generation_config.eos_token_id = list(processor.turn_ends)
    model.config.name_or_path = str(model_dir)  # TRL passes it to vLLM and loads the reference model from it
    dataset = Dataset.from_dict({"number": list(range(len(rows)))})
    locus = recipe.stage.method == "locus"
    prompt = CuePrompt(frame, crops.factor, crops.crop_tokens) if locus else _ToolPrompt(frame)
    trainer = ResumableTrainer(
        model=model,
        reward_funcs=recipe.stage.rewards(crops, judge)[0],
        args=config,
        train_dataset=dataset.with_transform(_Prompts(tuple(rows), prompt)),
        processing_class=processor,
        crops=crops,
        grounding=None if locus else recipe.stage.grounding_settings(),
        judge=judge,
        environment_factory=None if locus else environment_factories(crops, rows),
        mask_endings=recipe.stage.mask_endings,
        trajectories=_trajectory_log(recipe, output_dir),
        share_prompts=recipe.stage.share_prompts,
        peft_config=_lora(recipe, processor.family.lora),
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _trajectory_log(recipe: Recipe, output_dir: Path) -> TrajectoryLog:
    stage = recipe.stage
    return TrajectoryLog(output_dir / TRAJECTORIES, stage.trajectory_every, stage.trajectory_groups)


def _lora(recipe: Recipe, lora: families.LoraTargets) -> Any:
    """The adapter config of a recipe; None for full fine-tuning."""
    if not recipe.option("use_peft"):
        return None
    from peft import LoraConfig

    modules, parameters = recipe.lora_targets(lora)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.option("lora_r"),
        lora_alpha=recipe.option("lora_alpha"),
        lora_dropout=recipe.option("lora_dropout"),
        target_modules=modules,
        target_parameters=parameters,
        modules_to_save=recipe.option("lora_modules_to_save"),
        use_rslora=recipe.option("use_rslora"),
        use_dora=recipe.option("use_dora"),
    )


def _is_main_process() -> bool:
    """Whether this is the process that writes files."""
    return os.environ.get("RANK", "0") == "0"


def _save_model(trainer: Any, recipe: Recipe, model_dir: Path, output_dir: Path) -> None:
    """Save trained weights and config, and copy every other file from the model directory."""
    trainer.processing_class = None  # it would be saved with our raised limits
    adapter = output_dir / "adapter" if recipe.option("use_peft") else None
    trainer.save_model(str(adapter or output_dir))
    trainer.accelerator.wait_for_everyone()
    if not _is_main_process():
        return
    if adapter is not None:
        (adapter / "training_args.bin").unlink(missing_ok=True)
        with unsharded_models():  # only this process merges
            weights.merge_adapter(model_dir, adapter).save_pretrained(output_dir)
    (output_dir / "training_args.bin").unlink(missing_ok=True)
    for path in model_dir.iterdir():
        copied = path.is_file() and path.name != MANIFEST and not path.name.endswith(_NOT_COPIED)
        if copied and not (output_dir / path.name).exists():
            with atomic_file(output_dir / path.name) as draft:
                shutil.copy2(path, draft)
