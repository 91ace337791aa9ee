"""The directory of a training run: its manifest, metrics and checkpoints.

It holds `manifest.json`, `metrics.jsonl` (one line per step), the checkpoints and finally the trained model.
Only one process writes. A kill at any moment leaves every file complete or truncated, which is detected.
"""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lfpc_trl.data.rows import Row, rows_digest
from lfpc_trl.errors import UserError
from lfpc_trl.files import write_atomic
from lfpc_trl.json_values import parse_json, read_json
from lfpc_trl.own_code import OwnCode
from lfpc_trl.versions import installed

MANIFEST, METRICS_FILE = "manifest.json", "metrics.jsonl"
_PACKAGES = (
    *("lfpc-rewards", "torch", "transformers", "trl", "datasets", "accelerate", "peft", "deepspeed", "vllm"),
    *("numpy", "numba", "pillow"),
)
_SAME_TO_RESUME = ("stage", "recipe", "processes", "data")


def new_manifest(
    recipe: Mapping[str, Any],
    model_dir: Path,
    rows: Sequence[Row],
    *,
    model_hash: str,
    frame: str,
    processes: int,
    code: Sequence[OwnCode] = (),
) -> dict[str, Any]:
    """The manifest of a new run.

    Args:
        recipe: every setting, flat (`Recipe.flat`).
        model_dir: the model it starts from.
        rows: the training rows.
        model_hash: from `weights.fingerprint`.
        frame: the frame of the model's boxes.
        processes: number of training processes.
        code: the user's own code that the run calls.
    """
    return {
        "stage": recipe["stage"],
        "recipe": dict(recipe),
        "processes": processes,
        "frame": frame,
        "model": {"directory": str(model_dir), "sha256": model_hash},
        "data": {"rows": len(rows), "sha256": rows_digest(rows)},
        "code": {each.name: {"file": str(each.file), "sha256": each.sha256} for each in code},
        "versions": versions(),
        "finished": False,
    }


def versions() -> dict[str, str | None]:
    """The versions of the packages that results depend on, None if not installed, and the commit."""
    return {name: installed(name) for name in _PACKAGES} | {"commit": _commit()}


def _commit() -> str | None:
    """The commit of this checkout, None for an installed package."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    # The caller's environment and git settings must not make git read another repository or run a program.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        done = subprocess.run(
            [
                *("git", "-c", "core.fsmonitor=false", "-C", str(root)),
                *("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
            ],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


# --- starting and resuming ---------------------------------------------------------------------------


def check_new(output_dir: Path) -> None:
    """Refuse a directory that is not empty, apart from vLLM logs of a failed start.

    Raises:
        UserError: it holds a run or other files.
    """
    if (output_dir / MANIFEST).exists():
        raise UserError(f"{output_dir}: already holds a run; use --resume or another directory")
    present = [output_dir] if output_dir.is_file() else output_dir.glob("*")
    if not all(path.match("vllm-*.log") and path != output_dir for path in present):
        raise UserError(f"{output_dir}: the output directory must be new or empty")


def check_resumable(output_dir: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Check that a directory holds the run that `manifest` describes; return the manifest in it.

    Raises:
        UserError: there is no run, or something has changed; the message says what.
    """
    before = read_manifest(output_dir)
    if before is None:
        raise UserError(f"{output_dir}: no run to resume, it has no {MANIFEST}")
    for name in _SAME_TO_RESUME:
        if before.get(name) != manifest[name]:
            change = _difference(name, before.get(name), manifest[name])
            raise UserError(f"{output_dir}: cannot resume, {change}")
    for name, code in manifest["code"].items():
        if before.get("code", {}).get(name, {}).get("sha256") != code["sha256"]:
            raise UserError(f"{output_dir}: cannot resume, the code of {name} in {code['file']} has changed")
    if before["model"]["sha256"] != manifest["model"]["sha256"]:
        raise UserError(f"{output_dir}: cannot resume, the run started from another model")
    return before


def _difference(name: str, before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return f"{name}: {key} was {before.get(key)!r} and is {now.get(key)!r}"
    return f"{name} was {before!r} and is {now!r}"


def read_manifest(directory: str | Path) -> dict[str, Any] | None:
    """The manifest of a directory, None if there is none.

    Raises:
        UserError: it is damaged.
    """
    path = Path(directory) / MANIFEST
    try:
        return dict(read_json(path))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not readable ({error})") from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of the run atomically: a kill leaves the old or the new content."""
    write_atomic(path, json.dumps(content, indent=1) + "\n")


# --- checkpoints -------------------------------------------------------------------------------------


def checkpoint_step(checkpoint: Path) -> int:
    """The optimizer update after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def last_checkpoint(output_dir: str | Path) -> Path | None:
    """The newest complete checkpoint, one with its trainer state, which is written last; None without one."""
    checkpoints = [path for path in Path(output_dir).glob("checkpoint-*") if path.name[11:].isdigit()]
    for checkpoint in sorted(checkpoints, key=checkpoint_step, reverse=True):
        try:
            read_json(checkpoint / "trainer_state.json")
        except (OSError, ValueError):
            continue
        return checkpoint
    return None


def clear_leftovers(output_dir: Path) -> None:
    """Remove temporary files that safetensors left behind when the run was killed."""
    for folder in (output_dir, output_dir / "adapter", *output_dir.glob("checkpoint-*")):
        for path in folder.glob(".tmp*"):
            if path.is_file():
                path.unlink()


def last_step(output_dir: str | Path) -> int:
    """The last step of a run that a checkpoint covers, 0 without one."""
    checkpoint, manifest = last_checkpoint(output_dir), read_manifest(output_dir)
    if checkpoint is None or manifest is None:
        return 0
    recipe = manifest["recipe"]
    return checkpoint_step(checkpoint) // int(recipe["prompts_per_step"] // recipe["prompts_per_update"])


# --- metrics -----------------------------------------------------------------------------------------


def read_metrics(output_dir: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`; lines that are not JSON objects (truncated ones) are skipped."""
    path = Path(output_dir) / METRICS_FILE
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = parse_json(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def truncate_metrics(output_dir: Path, step: int) -> None:
    """Drop the metrics of steps after the checkpoint, which are about to be run again."""
    kept = [line for line in read_metrics(output_dir) if _is_done(line.get("step"), step)]
    write_atomic(output_dir / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in kept))


def _is_done(value: object, step: int) -> bool:
    """Whether a line belongs to a step up to this one; lines of other programs may hold anything."""
    return isinstance(value, int | float) and value <= step


def append_metrics(output_dir: Path, line: Mapping[str, Any]) -> None:
    """Append the metrics of one step."""
    with (output_dir / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
