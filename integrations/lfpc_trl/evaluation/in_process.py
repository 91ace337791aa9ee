"""How good a model is, how well it crops, and whether its answers come from its crops.

Four runs over the same rows: as the model is; without the tool; with noise in place of every crop; with the
target region in place of every crop. A model that looks at its crops loses with noise and gains with the
target region; one that guesses from the overview does not care (section 3 of the paper). The runs with other
crops begin with the turns of the first run, so that the crop is all that differs: a rollout that never
cropped is the same in all three.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lfpc_trl.crop_tool import CropSettings
from lfpc_trl.engines import TransformersEngine
from lfpc_trl.prompts import Message
from lfpc_trl.rewards import crop_metrics
from lfpc_trl.rollouts import generate_rollouts
from lfpc_trl.rows import Row
from lfpc_trl.transcript import GroundingSettings, ScoredRollout, score_transcripts

RUNS = 4
"""Passes over the rows that `evaluate` makes; its progress adds up to this times the rows."""


@dataclass(frozen=True)
class Trajectory:
    """What a model did with one row, and what it is worth.

    Attributes:
        row: the row, as it was shown.
        messages: turns of the model and tool messages, with their pictures.
        scored: its scores; `scored.crops` are the delivered crops in pixels of the original.
    """

    row: Row
    messages: list[Message]
    scored: ScoredRollout


@dataclass(frozen=True)
class Evaluation:
    """The outcome of `evaluate`.

    Attributes:
        metrics: plain numbers, None where one does not apply; ready for JSON. With the same model, rows and
            settings on the same machine they are the same.
        trajectories: of the run as the model is, in the order of the rows.
        seconds: wall time of all runs.
    """

    metrics: dict[str, float | int | None]
    trajectories: list[Trajectory]
    seconds: float


def evaluate(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    *,
    crop_settings: CropSettings,
    grounding: GroundingSettings = GroundingSettings(),  # noqa: B008 - frozen
    max_turns: int = 5,
    max_new_tokens: int = 2048,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Evaluate a model on rows it was not trained on.

    The metrics:

    * `accuracy`, `accuracy_without_tool`, `accuracy_noise_crop`, `accuracy_target_crop`: share of right
      answers in each run; the last is None unless every row has targets.
    * `tool_calls`: delivered crops per rollout; `failed_calls`: refused ones.
    * `iou`, `overlap`, `bbox_ratio`, `crop_tokens`: means over the rollouts *with* a delivered crop. IoU is
      the best over the nested boxes of a region, overlap the covered share of its innermost box; with several
      crops both are those of the crop that the grounding reward takes. The ratio is the crop's area over the
      picture's.
    * `format`, `format_noise_crop`: share of well-formed rollouts as the model is and under noise. Where the
      second is low, noise broke the form of the replies, and a low accuracy under noise says little about
      looking.
    * `questions`: number of rows.

    Args:
        model: a model of `load_model`.
        processor: a processor of `load_processor`.
        rows: rows with a `shown_size`.
        crop_settings: as in training; its `crop_source` is replaced run by run.
        grounding: how crops are compared with targets.
        max_turns: generations per rollout.
        max_new_tokens: limit on the tokens of one turn.
        temperature: 0 decodes greedily.
        seed: of the sampling; the noise has its own in `crop_settings`.
        batch_size: rollouts under way at a time.
        progress: called with the number of rollouts just finished; adds up to `RUNS` times the rows.

    Returns:
        Metrics and trajectories.

    Raises:
        ValueError: no rows, or as `generate_rollouts`.
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    start = time.perf_counter()
    engine = TransformersEngine(model, processor)

    def run(
        crop_source: str, *, tools: bool = True, first_turns: list[list[int]] | None = None
    ) -> tuple[list[Trajectory], list[list[int]]]:
        settings = dataclasses.replace(crop_settings, crop_source=crop_source)  # type: ignore[arg-type]
        rollouts = generate_rollouts(
            engine,
            rows,
            crop_settings=settings,
            tools=tools,
            max_turns=max_turns,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
            batch_size=batch_size,
            first_turns=first_turns,
            progress=progress,
        )
        scored = score_transcripts([rollout.messages for rollout in rollouts], rows, settings, grounding)
        trajectories = [
            Trajectory(rollout.row, rollout.messages, score)
            for rollout, score in zip(rollouts, scored, strict=True)
        ]
        return trajectories, [rollout.first_turn for rollout in rollouts]

    as_it_is, first_turns = run("predicted")
    without_tool, _ = run("predicted", tools=False)
    noise, _ = run("noise", first_turns=first_turns)
    targets = None
    if all(row.regions is not None for row in rows):
        targets, _ = run("target", first_turns=first_turns)
    elif progress is not None:
        progress(len(rows))
    crops = crop_metrics([trajectory.scored for trajectory in as_it_is])
    metrics: dict[str, float | int | None] = {
        "accuracy": _accuracy(as_it_is),
        "accuracy_without_tool": _accuracy(without_tool),
        "accuracy_noise_crop": _accuracy(noise),
        "accuracy_target_crop": None if targets is None else _accuracy(targets),
        **{name: None if math.isnan(value) else value for name, value in crops.items()},
        "format": _format(as_it_is),
        "format_noise_crop": _format(noise),
        "questions": len(rows),
    }
    return Evaluation(metrics, as_it_is, time.perf_counter() - start)


def _accuracy(trajectories: Sequence[Trajectory]) -> float:
    return sum(trajectory.scored.accuracy for trajectory in trajectories) / len(trajectories)


def _format(trajectories: Sequence[Trajectory]) -> float:
    # The term is 0 for a well-formed rollout and negative for any other.
    return sum(trajectory.scored.format >= 0 for trajectory in trajectories) / len(trajectories)
