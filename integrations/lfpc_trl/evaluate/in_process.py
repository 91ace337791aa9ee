"""How good a model is, how well it crops, and whether its answers come from its crops; for a model at hand.

The same rows under several conditions: as the model is; without the tool; with something else in place of
every crop. A model that looks at its crops loses with noise and gains with the target region; one that
guesses from the overview does not care (section 3 of the paper). `lfpc eval` does the same for whole
benchmarks, writes everything down and has more figures.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lfpc_trl.data.rows import Row
from lfpc_trl.evaluate.conditions import Condition, choose
from lfpc_trl.evaluate.questions import Question, item_key
from lfpc_trl.evaluate.work import Asking, EvaluationWork
from lfpc_trl.jobs.workers import Failure
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import Rollout, RolloutSettings
from lfpc_trl.rollouts.prompts import Message
from lfpc_trl.rollouts.rewards import crop_metrics
from lfpc_trl.rollouts.transcript import GroundingSettings, ScoredRollout, score_transcripts

FOUR: tuple[Condition, ...] = ("predicted", "no_tool", "noise", "target")
"""The conditions of `evaluate` unless others are asked for."""
RUNS = len(FOUR)
"""Rollouts per row under these; the progress of `evaluate` adds up to this times the rows."""
_NAMES = {"predicted": "", "no_tool": "_without_tool", "noise": "_noise_crop", "target": "_target_crop"}


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
        trajectories: of the condition `predicted`, in the order of the rows.
        seconds: wall time of all conditions.
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
    conditions: Sequence[Condition] = FOUR,
    progress: Callable[[int], object] | None = None,
) -> Evaluation:
    """Evaluate a model on rows it was not trained on.

    The metrics:

    * `accuracy`, `accuracy_without_tool`, `accuracy_noise_crop`, `accuracy_target_crop`: share of right
      answers under each condition; None for one that was not asked for; the last is None unless every row has
      targets. `accuracy_elsewhere`, `accuracy_no_picture` where these are asked for.
    * `tool_calls`: delivered crops per rollout; `failed_calls`: refused ones.
    * `iou`, `overlap`, `bbox_ratio`, `crop_tokens`: means over the rollouts *with* a delivered crop. IoU is
      the best over the nested boxes of a region, overlap the covered share of its innermost box; with several
      crops both are those of the crop that the grounding reward takes. The ratio is the crop's area over the
      picture's.
    * `format`, `format_noise_crop`: share of well-formed rollouts as the model is and under noise. Where the
      second is low, noise broke the form of the replies, and a low accuracy under noise says little about
      looking. Likewise `format_elsewhere` and `format_no_picture`.
    * `questions`: number of rows.

    Args:
        model: a model of `load_model`.
        processor: a processor of `load_processor`.
        rows: rows with a `shown_size`.
        crop_settings: as in training; each condition puts in its own `crop_source`.
        grounding: how crops are compared with targets.
        max_turns: generations per rollout.
        max_new_tokens: limit on the tokens of one turn.
        temperature: 0 decodes greedily.
        seed: of the sampling; the noise has its own in `crop_settings`.
        batch_size: rollouts under way at a time.
        conditions: some of `conditions.CONDITIONS`; `predicted` is always among them.
        progress: called with the number of rollouts just finished; adds up to the rows times the conditions.

    Returns:
        Metrics and trajectories.

    Raises:
        ValueError: no rows, an unknown condition, or as `generate_rollouts`.
        OSError: a picture is gone.
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    start = time.perf_counter()
    asked = {"predicted", *conditions}
    wanted = choose(asked if all(row.regions is not None for row in rows) else asked - {"target"}, rows)
    items: dict[str, list[Asking]] = defaultdict(list)
    for index, row in enumerate(rows):
        items[item_key(row)].append(Asking("", Question(row, str(index)), wanted))
    work = EvaluationWork(
        TransformersEngine(model, processor),
        crop_settings,
        RolloutSettings(max_turns, max_new_tokens, temperature, seed, batch_size),
    )
    rollouts: dict[Condition, dict[int, Rollout]] = {condition: {} for condition in wanted}
    for found in work((key, tuple(item)) for key, item in items.items()):
        if isinstance(found, Failure):
            raise OSError(found.reason)
        rollouts[found.condition][int(found.asking.question.question_id)] = found.rollout
        if progress is not None:
            progress(1)
    if progress is not None and len(wanted) < len(asked):
        progress(len(rows))
    done = {
        condition: _scored([some[index] for index in range(len(rows))], crop_settings, grounding)
        for condition, some in rollouts.items()
    }
    return Evaluation(_metrics(done), done["predicted"], time.perf_counter() - start)


def _scored(
    rollouts: Sequence[Rollout], crops: CropSettings, grounding: GroundingSettings
) -> list[Trajectory]:
    rows = [rollout.row for rollout in rollouts]
    scores = score_transcripts([rollout.messages for rollout in rollouts], rows, crops, grounding)
    return [Trajectory(each.row, each.messages, score) for each, score in zip(rollouts, scores, strict=True)]


def _metrics(done: dict[Condition, list[Trajectory]]) -> dict[str, float | int | None]:
    predicted = [trajectory.scored for trajectory in done["predicted"]]
    metrics: dict[str, float | int | None] = {
        f"accuracy{_NAMES[condition]}": _accuracy(done[condition]) if condition in done else None
        for condition in FOUR
    }
    for name, value in crop_metrics(predicted).items():
        metrics[name] = None if math.isnan(value) else value
    metrics["format"] = _format(done["predicted"])
    metrics["format_noise_crop"] = _format(done["noise"]) if "noise" in done else None
    for condition in done:
        if condition not in FOUR:
            metrics[f"accuracy_{condition}"] = _accuracy(done[condition])
            metrics[f"format_{condition}"] = _format(done[condition])
    return metrics | {"questions": len(predicted)}


def _accuracy(trajectories: Sequence[Trajectory]) -> float:
    return sum(trajectory.scored.accuracy for trajectory in trajectories) / len(trajectories)


def _format(trajectories: Sequence[Trajectory]) -> float:
    # The term is 0 for a well-formed rollout and negative for any other.
    return sum(trajectory.scored.format >= 0 for trajectory in trajectories) / len(trajectories)
