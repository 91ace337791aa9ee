"""Evaluates how well cues are found, and how the context around the evidence changes accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lfpc_rewards import accuracy_reward
from lfpc_trl.data.rows import Row
from lfpc_trl.locus.cues import check_cue
from lfpc_trl.locus.task import CuePrompt, score_cues
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.pictures.originals import load_original
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import generate_rollouts


@dataclass(frozen=True)
class CueResults:
    """Results of finding cues.

    Attributes:
        iou: (rows,) IoU of each answer with its cue; 0 without a box.
        format: fraction of well-formed answers.
        answers: the last turn of each row.
    """

    iou: NDArray[np.float64]
    format: float
    answers: tuple[str, ...]

    @property
    def mean_iou(self) -> float:
        """Mean IoU over all rows."""
        return float(self.iou.mean())

    @property
    def acc_at_half(self) -> float:
        """Fraction of rows with an IoU of at least 0.5."""
        return float((self.iou >= 0.5).mean())


def locate_cues(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    *,
    crop_settings: CropSettings,
    max_new_tokens: int = 1024,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
) -> CueResults:
    """Have a model locate cues, and score its answers.

    Args:
        model: from `load_model`.
        processor: from `load_processor`.
        rows: cues with a `shown_size`.
        crop_settings: the frame of the model's boxes, and the maximum size of a shown cue.
        max_new_tokens: limit on an answer.
        temperature: 0 decodes greedily.
        seed: seed for sampling.
        batch_size: number of rollouts at a time.

    Raises:
        DataError: a row is not a cue.
        ValueError: a row has no `shown_size`, or a setting is out of range.
    """
    for row in rows:
        check_cue(row)
    prompt = CuePrompt(crop_settings.frame, crop_settings.factor, crop_settings.crop_tokens)
    rollouts = generate_rollouts(
        TransformersEngine(model, processor),
        rows,
        crop_settings=crop_settings,
        prompt=prompt,
        max_turns=1,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        batch_size=batch_size,
    )
    parts = score_cues([rollout.messages for rollout in rollouts], rows, crop_settings.frame)
    answers = tuple(str(rollout.messages[-1].get("content")) for rollout in rollouts)
    return CueResults(parts.iou, float(parts.format.mean()), answers)


@dataclass(frozen=True)
class ContextSuppression:
    """Accuracy with and without the context around the evidence.

    Attributes:
        accuracy: (rows,) with the original picture; NaN where the rules do not decide.
        suppressed: (rows,) with everything but the targets blacked out.
    """

    accuracy: NDArray[np.float64]
    suppressed: NDArray[np.float64]

    @property
    def change(self) -> float:
        """Change in accuracy from blacking out the context; negative if the context helped."""
        return float(np.nanmean(self.suppressed) - np.nanmean(self.accuracy))


def suppress_context(rows: Sequence[Row], folder: Path) -> list[Row]:
    """Copy the rows with pictures that are black outside the targets.

    Keeps the outermost box of each region, rounded outwards to whole pixels. Size, boxes and question stay.

    Args:
        rows: rows with targets.
        folder: where the pictures are written, as PNG.

    Raises:
        ValueError: a row has no targets.

    Source:
        LOCUS (arXiv 2606.16586), its diagnosis of context interference.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blacked_out = []
    for number, row in enumerate(rows):
        if row.regions is None:
            raise ValueError(f"{row.name} has no targets, so nothing can be kept")
        paths = []
        for image, shown in enumerate(row.pictures, start=1):
            original = load_original(shown.image)
            picture = Image.new("RGB", original.size)
            for target in row.targets:
                if target.image == image:
                    left, top = np.floor(target.boxes[-1][:2]).astype(int).tolist()
                    right, bottom = np.ceil(target.boxes[-1][2:]).astype(int).tolist()
                    picture.paste(original.crop((left, top, right, bottom)), (left, top))
            path = folder / (f"{number:06d}.png" if image == 1 else f"{number:06d}-{image}.png")
            picture.save(path)
            paths.append(path.absolute())
        others = (each._replace(image=path) for each, path in zip(row.others, paths[1:], strict=True))
        blacked_out.append(replace(row, image=paths[0], others=tuple(others)))
    return blacked_out


def context_suppression(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    folder: Path,
    *,
    crop_settings: CropSettings,
    max_new_tokens: int = 2048,
    batch_size: int = 32,
) -> ContextSuppression:
    """Answer every row greedily without a tool: with its picture, and with only its targets visible.

    Args:
        model: from `load_model`.
        processor: from `load_processor`.
        rows: rows with targets and a `shown_size`.
        folder: where the blacked-out pictures are written.
        crop_settings: the frame of the model's boxes.
        max_new_tokens: limit on an answer.
        batch_size: number of rollouts at a time.
    """
    engine = TransformersEngine(model, processor)

    def accuracy(shown: Sequence[Row]) -> NDArray[np.float64]:
        rollouts = generate_rollouts(
            engine,
            shown,
            crop_settings=crop_settings,
            tools=False,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
        completions = [rollout.messages for rollout in rollouts]
        return accuracy_reward(completions, [row.answer for row in rows], [row.choices for row in rows])

    return ContextSuppression(accuracy(rows), accuracy(suppress_context(rows, folder)))
