"""One training run of one stage, from a model directory and rows to a model directory.

An output directory holds, beside the checkpoints of the run, `manifest.json` (what was run on what),
`metrics.jsonl` (one line per step) and in the end the trained model, with the processor files of the model it
started from, so that it loads wherever that one does.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.trainer_callback import ProgressCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOTrainer

from lfpc_rewards import Frame
from lfpc_trl import models
from lfpc_trl.crop_tool import environment_factory
from lfpc_trl.errors import UserError
from lfpc_trl.prompts import build_prompt
from lfpc_trl.rewards import METRICS
from lfpc_trl.rows import Row, rows_digest
from lfpc_trl.stages import Stage1Settings

MANIFEST, METRICS_FILE = "manifest.json", "metrics.jsonl"
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
    "completion_tokens": "completions/mean_length",
    "clipped_ratio": "completions/clipped_ratio",
    "entropy": "entropy",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
}
"""Our name in `metrics.jsonl`: TRL's name in its logs. No times, so that equal runs give equal files."""
_WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".md", ".index.json")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' bars for every file it writes, and without what no user can act on."""
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # TRL 1.16 asks transformers 5.23 by an old name, in every step.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            yield
    finally:
        if bars:
            transformers_logging.enable_progress_bar()


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
    settings: Stage1Settings,
    model_dir: str | Path,
    rows: Sequence[Row],
    output_dir: str | Path,
    *,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> TrainResult:
    """Train a model with one stage's settings.

    Args:
        settings: `Stage1Settings` or `Stage2Settings`.
        model_dir: a Hugging Face directory of Qwen2.5-VL or Qwen3-VL.
        rows: checked rows with `shown_size`, and with targets where the grounding reward has a weight.
        output_dir: a new or empty directory; with `resume` the directory of the run to go on with.
        resume: go on from the last checkpoint (from the start if there was none yet). Settings, rows and
            model must be those of the run. A finished run is returned as it is.
        on_step: progress; nothing is printed here.

    Raises:
        UserError: anything the user can put right, before any training starts.
    """
    output_dir = Path(output_dir)
    settings.check()
    family = models.family_of(model_dir)
    _check_rows(settings, rows)
    manifest = _manifest(settings, Path(model_dir), rows)
    checkpoint = _prepare(output_dir, manifest, resume=resume)
    if resume and _read_manifest(output_dir)["finished"]:
        return TrainResult(output_dir, settings.steps, read_metrics(output_dir))
    processor = models.load_processor(model_dir)
    _check_shown_sizes(rows, models.factor(processor))
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    done = 0 if checkpoint is None else checkpoint_step(checkpoint) // settings.updates_per_step()
    with _quiet():
        model = models.load_model(checkpoint or model_dir)
        model.config.name_or_path = str(model_dir)  # TRL loads the reference model of a KL term from here
        if _is_main_process():
            output_dir.mkdir(parents=True, exist_ok=True)
            _write_json(output_dir / MANIFEST, manifest)
            _keep_metrics_until(output_dir / METRICS_FILE, done)
        trainer = _trainer(settings, family.frame, processor, model, rows, output_dir)
        trainer.epochs_done = done // (len(rows) // settings.prompts_per_step)
        trainer.add_callback(_StepLog(output_dir / METRICS_FILE, settings, on_step))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        _save_model(trainer, Path(model_dir), output_dir)
    if _is_main_process():
        _write_json(output_dir / MANIFEST, manifest | {"finished": True})
    return TrainResult(output_dir, settings.steps, read_metrics(output_dir))


# --- checks ------------------------------------------------------------------------------------------


def _check_rows(settings: Stage1Settings, rows: Sequence[Row]) -> None:
    for row in rows:
        if row.shown_size is None:
            raise UserError(
                f"{row.name}: no shown_size; choose it per row with 'lfpc select-resolution' "
                "or one for all rows with --shown-tokens"
            )
        if settings.grounding_weight and row.regions is None:
            raise UserError(f"{row.name}: the grounding reward needs targets, got none")
    if len(rows) < settings.prompts_per_step:
        raise UserError(
            f"prompts_per_step must be at most the {len(rows)} rows, got {settings.prompts_per_step}"
        )


def _check_shown_sizes(rows: Sequence[Row], factor: int) -> None:
    for row in rows:
        width, height = row.shown_size or (0, 0)
        if width % factor or height % factor:
            raise UserError(
                f"{row.name}: shown_size must be multiples of {factor} (this model), got {[width, height]}"
            )


def _manifest(settings: Stage1Settings, model_dir: Path, rows: Sequence[Row]) -> dict[str, Any]:
    packages = ("lfpc-rewards", "torch", "transformers", "trl", "datasets", "accelerate", "numpy", "pillow")
    return {
        "stage": settings.stage,
        "settings": dataclasses.asdict(settings),
        "model": {"directory": str(model_dir), "fingerprint": _fingerprint(model_dir)},
        "data": {"rows": len(rows), "sha256": rows_digest(rows)},
        "versions": {name: _version(name) for name in packages},
        "finished": False,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # run from a checkout that is not installed


def _fingerprint(model_dir: Path) -> str:
    """Config, and names and sizes of the weights: enough to notice another model without reading 15 GB."""
    digest = hashlib.sha256((model_dir / "config.json").read_bytes())
    for path in sorted(model_dir.glob("*.safetensors")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


# --- the output directory ----------------------------------------------------------------------------


def _is_main_process() -> bool:
    """The one of several processes (torchrun) that writes files."""
    return os.environ.get("RANK", "0") == "0"


def _prepare(output_dir: Path, manifest: dict[str, Any], *, resume: bool) -> Path | None:
    """Refuse what must not be overwritten or mixed; the checkpoint to go on from, if any."""
    if not resume:
        if not _is_main_process():
            return None  # the main process may have started to write there
        if (output_dir / MANIFEST).exists():
            raise UserError(f"{output_dir}: already holds a run; use --resume or another directory")
        if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
            raise UserError(f"{output_dir}: the output directory must be new or empty")
        return None
    if not (output_dir / MANIFEST).exists():
        raise UserError(f"{output_dir}: no run to resume, it has no {MANIFEST}")
    before = _read_manifest(output_dir)
    for name in ("stage", "settings", "data"):
        if before.get(name) != manifest[name]:
            change = _difference(name, before.get(name), manifest[name])
            raise UserError(f"{output_dir}: cannot resume, {change}")
    if before["model"]["fingerprint"] != manifest["model"]["fingerprint"]:
        raise UserError(f"{output_dir}: cannot resume, the run started from another model")
    return last_checkpoint(output_dir)


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return f"{name}: {key} was {before.get(key)!r} and is {now.get(key)!r}"
    return f"{name} was {before!r} and is {now!r}"


def _read_manifest(output_dir: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((output_dir / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{output_dir / MANIFEST}: not readable ({error})") from None
    return dict(manifest)


def checkpoint_step(checkpoint: Path) -> int:
    """The optimiser update after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint: the trainer state is written last, a kill leaves none."""
    checkpoints = [path for path in Path(output_dir).glob("checkpoint-*") if path.name[11:].isdigit()]
    for checkpoint in sorted(checkpoints, key=checkpoint_step, reverse=True):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return checkpoint
    return None


def last_step(output_dir: str | Path) -> int:
    """The last step of a run that is safe in a checkpoint, 0 without one."""
    checkpoint = last_checkpoint(output_dir)
    if checkpoint is None:
        return 0
    settings = _read_manifest(Path(output_dir))["settings"]
    return checkpoint_step(checkpoint) // int(settings["prompts_per_step"] // settings["prompts_per_update"])


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write through a second file, so that a kill leaves the old or the new content."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


# --- metrics -----------------------------------------------------------------------------------------


def read_metrics(output_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; a last line cut short by a kill is left out."""
    path = Path(output_dir) / METRICS_FILE
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


def _keep_metrics_until(path: Path, step: int) -> None:
    """Forget the steps after the checkpoint: they are about to be done again."""
    kept = [line for line in read_metrics(path.parent) if line["step"] <= step]
    path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


class _StepLog(TrainerCallback):  # type: ignore[misc]
    """Appends a line per step to `metrics.jsonl` and reports it."""

    def __init__(self, path: Path, settings: Stage1Settings, on_step: OnStep | None) -> None:
        self.path, self.settings, self.on_step = path, settings, on_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
        if not state.is_world_process_zero or logs is None or "reward" not in logs:
            return  # the summary at the end of a run holds no reward
        step = state.global_step // self.settings.updates_per_step()
        line = {"step": step} | {ours: _number(logs.get(trl)) for ours, trl in _TRL_NAMES.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.on_step is not None:
            self.on_step(step, self.settings.steps, line)


def _number(value: Any) -> float | None:
    """JSON has no NaN: a metric that applied to nothing is null."""
    return None if value is None or math.isnan(float(value)) else float(value)


# --- the trainer -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prompts:
    """Turns row numbers into what TRL reads. Rows stay Python objects: no box goes through Arrow."""

    rows: tuple[Row, ...]
    frame: Frame

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        return {
            "prompt": [build_prompt(self.frame) for _ in batch["number"]],
            "row": [self.rows[number] for number in batch["number"]],
        }


class _Trainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's trainer, going on from a checkpoint as if it had never stopped."""

    epochs_done = 0

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # The model was loaded from the checkpoint already. The trainer would match the names in the file with
        # those of the model, which differ for Qwen2.5-VL, and go on with untrained weights.
        pass

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        # TRL's card describes a text model and knows no name for a model from a directory.
        pass

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        # Every epoch draws its order from one generator: without the draws of the epochs before, a resumed
        # run would see the first epoch's order again.
        sampler = super()._get_train_sampler(dataset)
        for _ in range(self.epochs_done):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
        return sampler


def _trainer(
    settings: Stage1Settings, frame: Frame, processor: Any, model: Any, rows: Sequence[Row], output_dir: Path
) -> Any:
    # TRL announces on every start that environments are experimental; our version range says so once.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    settings = dataclasses.replace(settings, use_cpu=settings.use_cpu or models.default_device() == "cpu")
    crops = settings.crop_settings(frame, models.factor(processor))
    config = settings.grpo_config(
        output_dir,
        suppress_tokens=models.vision_token_ids(processor),
        bf16=not settings.use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    )
    dataset = Dataset.from_dict({"number": list(range(len(rows)))})
    trainer = _Trainer(
        model=model,
        reward_funcs=settings.rewards(crops)[0],
        args=config,
        train_dataset=dataset.with_transform(_Prompts(tuple(rows), frame)),
        processing_class=processor,
        environment_factory=environment_factory(crops),
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _save_model(trainer: Any, model_dir: Path, output_dir: Path) -> None:
    """Weights and config as trained; every other file as it was in the model directory."""
    trainer.processing_class = None  # it would be written with the limits that we opened
    trainer.save_model(str(output_dir))
    if not _is_main_process():
        return
    (output_dir / "training_args.bin").unlink(missing_ok=True)
    for path in model_dir.iterdir():
        if path.is_file() and not path.name.endswith(_WEIGHT_FILES) and not (output_dir / path.name).exists():
            shutil.copy2(path, output_dir)
