"""Export of a trained model: a directory that standard tools load, with a model card."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lfpc_trl.errors import UserError, not_found
from lfpc_trl.models.families import ModelFamily, family_of
from lfpc_trl.models.prepare import Weights, prepare_model
from lfpc_trl.runs.directory import read_manifest, read_metrics

CARD = "README.md"
_MODEL_FILES = (
    *("config.json", "generation_config.json", "chat_template.jinja", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer*", "model*.safetensors", "model.safetensors.index.json", "LICENSE*"),
)
"""The files that are copied; those of the run are not."""
_CARD_METRICS = ("reward", "accuracy", "tool_calls", "iou", "overlap", "bbox_ratio")
"""Metrics of the last step, by their names in `metrics.jsonl`."""
_UNKNOWN_LICENCE = "other"


def export_model(
    model_dir: str | Path,
    output_dir: str | Path,
    *,
    evaluation: str | Path | None = None,
    weights: Weights = "copy",
) -> str:
    """Write the model of a finished training to a directory of its own.

    The directory is like that of `prepare_model`, without the files of the run and with a model card. The
    card contains directory names but no full paths.

    Args:
        model_dir: the output directory of a training.
        output_dir: a new or empty directory.
        evaluation: an output directory of `lfpc eval`, for the card.
        weights: `copy` the files, or `link` them, as in `prepare_model`.

    Returns:
        The command that serves the model.

    Raises:
        UserError: no finished training, an unreadable file, or as in `prepare_model`.
    """
    model_dir, output_dir = Path(model_dir), Path(output_dir)
    if not model_dir.is_dir():
        raise not_found(model_dir, "directory")
    stages = lineage(model_dir)
    if not stages:
        raise UserError(f"{model_dir}: must be the output directory of lfpc train, but has no manifest.json")
    if not stages[-1]["finished"]:
        raise UserError(f"{model_dir}: the training is not finished; continue it with --resume")
    family = family_of(model_dir)
    name = output_dir.resolve().name
    card = model_card(
        name,
        stages,
        serve=serve_command(name, family),
        steps=[line for line in read_metrics(model_dir) if "reward" in line],
        licence=licence_of(Path(stages[0]["model"]["directory"])),
        figures=None if evaluation is None else _figures(Path(evaluation)),
    )
    prepare_model(
        model_dir,
        output_dir,
        weights=weights,
        keep=lambda name: any(Path(name).match(pattern) for pattern in _MODEL_FILES),
        more={CARD: card},
    )
    return serve_command(str(output_dir), family)


def lineage(model_dir: str | Path) -> list[dict[str, Any]]:
    """The manifests of the trainings that led to a model, in order; empty if it was not trained.

    The list starts later if the model that a training started from has been moved: its manifest is missing.

    Raises:
        UserError: a manifest is damaged.
    """
    stages: list[dict[str, Any]] = []
    folder, seen = Path(model_dir), set()
    while folder.resolve() not in seen and (manifest := read_manifest(folder)) is not None:
        seen.add(folder.resolve())
        stages.insert(0, manifest)
        folder = Path(manifest["model"]["directory"])
    return stages


def licence_of(model_dir: Path) -> str | None:
    """The licence in the card of a model directory; None if there is no card or it names none."""
    try:
        text = (model_dir / CARD).read_text(encoding="utf-8")
        header = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        content = yaml.safe_load(header[1]) if header else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    licence = content.get("license") if isinstance(content, dict) else None
    return licence if isinstance(licence, str) and licence else None


def serve_command(name: str, family: ModelFamily) -> str:
    """The vLLM command that serves an exported directory, with tool calls enabled."""
    return f"vllm serve {name} --enable-auto-tool-choice --tool-call-parser {family.calls.vllm_parser}"


# --- the card ----------------------------------------------------------------------------------------


def model_card(
    name: str,
    stages: Sequence[Mapping[str, Any]],
    *,
    serve: str,
    steps: Sequence[Mapping[str, Any]],
    licence: str | None,
    figures: str | None,
) -> str:
    """The text of a model card, with the metadata header of the Hugging Face Hub.

    Args:
        name: name of the model.
        stages: the manifests of its trainings, in order.
        serve: the command that serves it.
        steps: the lines of `metrics.jsonl` of the last training.
        licence: of the model that the first training started from; None if unknown.
        figures: tables of an evaluation, in Markdown.
    """
    base = Path(stages[0]["model"]["directory"]).name
    head = {
        "license": licence or _UNKNOWN_LICENCE,
        "base_model": base,
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["lfpc", "grpo", "visual-grounding", "tool-use"],
    }
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {name}",
        "",
        f"{base}, trained to look closer: before it answers, it can request crops, which are cut from the",
        "original picture. Trained by reinforcement learning with lfpc_rewards.",
        "",
    ]
    if licence is None:
        lines += [
            "The licence of the base model is unknown; state it before you publish.",
            "",
        ]
    lines += [
        "## Use",
        "",
        "```bash",
        serve,
        "```",
        "",
        *_boxes_and_crops(stages[-1]),
        "## Training",
        "",
    ]
    lines += _stages(stages)
    if steps:
        values = [(key, steps[-1].get(key)) for key in _CARD_METRICS]
        lines += ["", f"Means over the rollouts of the last step, {steps[-1]['step']}:", ""]
        lines += ["| figure | value |", "| --- | ---: |"]
        lines += [f"| `{key}` | {value:.3f} |" for key, value in values if value is not None]
    if figures is not None:
        lines += ["", "## Evaluation", "", figures]
    last = stages[-1]
    versions = ", ".join(
        f"{key} {value}" for key, value in last["versions"].items() if value and key != "commit"
    )
    lines += ["", "## The last recipe", "", f"With {versions}.", "", "```yaml"]
    lines += [yaml.safe_dump(dict(last["recipe"]), sort_keys=False, allow_unicode=True).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _boxes_and_crops(last: Mapping[str, Any]) -> list[str]:
    recipe = last["recipe"]
    frame = {
        "shown": "pixels of the shown picture",
        "relative_1000": "thousandths of the picture's sides",
    }.get(str(last["frame"]), str(last["frame"]))
    return [
        f"It writes boxes in {frame}. It was trained with crops of at most {recipe['crop_tokens']} visual",
        f"tokens, at most {recipe['max_crops']} of them in {recipe['max_turns']} turns.",
        "",
    ]


def _stages(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| | method | rows | steps | rollouts per step | weights of the reward | learning rate |"]
    lines.append("| --- | --- | ---: | ---: | ---: | --- | ---: |")
    for number, stage in enumerate(stages, start=1):
        recipe = stage["recipe"]
        weights = ", ".join(
            f"{name.removesuffix('_weight')} {value:g}"
            for name, value in recipe.items()
            if name.endswith("_weight") and name != "iou_weight" and value
        )
        cells = [
            str(number),
            f"{recipe['method']}, stage {stage['stage']}",
            f"{stage['data']['rows']:,}",
            str(recipe["steps"]),
            str(recipe["prompts_per_step"] * recipe["num_generations"]),
            weights,
            f"{recipe['learning_rate']:g}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    digests = ", ".join(f"`{stage['data']['sha256'][:16]}`" for stage in stages)
    return [*lines, "", f"sha256 of the rows: {digests}. Base model: `{stages[0]['model']['sha256'][:16]}`."]


def _figures(evaluation: Path) -> str:
    """The tables of an evaluation, with headings one level lower."""
    try:
        text = (evaluation / "tables.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise UserError(
            f"{evaluation}: must be the output of a finished lfpc eval, but it has no readable tables.md"
        ) from None
    return re.sub(r"^#", "##", re.sub(r"^# .*\n+", "", text), flags=re.MULTILINE).strip()
