"""Evaluate a model in memory: accuracy, crop quality, and whether its answers depend on its crops.

The same rows run under several conditions: the model unchanged, without the tool, and with every crop
replaced by something else. A model that uses its crops gets worse with noise and better with the target
region; one that guesses from the overview is unaffected (section 3 of the paper). `lfpc eval` does the same
for whole benchmarks, writes all rollouts to disk and computes more metrics.
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
from lfpc_trl.evaluate.work import EvaluationWork, Task
from lfpc_trl.jobs.workers import Failure
from lfpc_trl.models.engines import TransformersEngine
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import Rollout, RolloutSettings
from lfpc_trl.rollouts.prompts import Message
from lfpc_trl.rollouts.rewards import crop_metrics
from lfpc_trl.rollouts.transcript import GroundingSettings, ScoredRollout, score_transcripts

FOUR: tuple[Condition, ...] = ("predicted", "no_tool", "noise", "target")
"""The default conditions of `evaluate`."""
RUNS = len(FOUR)
"""Rollouts per row under the default conditions; the progress of `evaluate` sums to this times the rows."""
_NAMES = {"predicted": "", "no_tool": "_without_tool", "noise": "_noise_crop", "target": "_target_crop"}


@dataclass(frozen=True)
class EvaluatedRollout:
    """A rollout for one row, with its scores.

    Attributes:
        row: the row, with its shown size.
        messages: turns of the model and tool messages, with their pictures.
        scored: its scores; `scored.crops` are the delivered crops in pixels of the original.
    """

    row: Row
    messages: list[Message]
    scored: ScoredRollout


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        metrics: JSON numbers, None where a metric does not apply. The same model, rows and settings on the
            same machine give the same metrics.
        trajectories: of the condition `predicted`, in the order of the rows.
        seconds: wall time of all conditions.
    """

    metrics: dict[str, float | int | None]
    trajectories: list[EvaluatedRollout]
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
      answers under each condition; None for a condition that was not run; the last is None unless every row
      has targets. `accuracy_elsewhere` and `accuracy_no_picture` are there if these conditions were run.
    * `tool_calls`: delivered crops per rollout; `failed_calls`: refused ones.
    * `iou`, `overlap`, `bbox_ratio`, `crop_tokens`: means over the rollouts *with* a delivered crop. IoU is
      the best over the nested boxes of a region, overlap the covered share of its innermost box; with several
      crops, both are computed on the crop that the grounding reward uses. The ratio is the crop's area over
      the picture's.
    * `format`, `format_noise_crop`: share of well-formed rollouts for the unchanged model and under noise. If
      the second is low, noise broke the format of the replies, and a low accuracy under noise says little
      about whether the model uses its crops. Likewise `format_elsewhere` and `format_no_picture`.
    * `questions`: number of rows.

    Args:
        model: a model of `load_model`.
        processor: a processor of `load_processor`.
        rows: rows with a `shown_size`.
        crop_settings: as in training; each condition sets its own `crop_source`.
        grounding: how crops are compared with targets.
        max_turns: maximum number of model turns per rollout.
        max_new_tokens: token limit of one turn.
        temperature: 0 decodes greedily.
        seed: sampling seed; the noise has its own seed in `crop_settings`.
        batch_size: number of concurrent rollouts.
        conditions: some of `conditions.CONDITIONS`; `predicted` is always added.
        progress: called with the number of rollouts just finished; sums to the rows times the conditions.

    Returns:
        Metrics and trajectories.

    Raises:
        ValueError: no rows, an unknown condition, or an error of `generate_rollouts`.
        OSError: a picture is missing.
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none")
    start = time.perf_counter()
    requested = {"predicted", *conditions}
    have_targets = all(row.regions is not None for row in rows)
    chosen = choose(requested if have_targets else requested - {"target"}, rows)
    items: dict[str, list[Task]] = defaultdict(list)
    for index, row in enumerate(rows):
        items[item_key(row)].append(Task("", Question(row, str(index)), chosen))
    work = EvaluationWork(
        TransformersEngine(model, processor),
        crop_settings,
        RolloutSettings(max_turns, max_new_tokens, temperature, seed, batch_size),
    )
    rollouts: dict[Condition, dict[int, Rollout]] = {condition: {} for condition in chosen}
    for done in work((key, tuple(tasks)) for key, tasks in items.items()):
        if isinstance(done, Failure):
            raise OSError(done.reason)
        rollouts[done.condition][int(done.task.question.question_id)] = done.rollout
        if progress is not None:
            progress(1)
    if progress is not None and len(chosen) < len(requested):
        progress(len(rows))
    scored = {
        condition: _scored([by_row[index] for index in range(len(rows))], crop_settings, grounding)
        for condition, by_row in rollouts.items()
    }
    return Evaluation(_metrics(scored), scored["predicted"], time.perf_counter() - start)


def _scored(
    rollouts: Sequence[Rollout], crops: CropSettings, grounding: GroundingSettings
) -> list[EvaluatedRollout]:
    rows = [rollout.row for rollout in rollouts]
    scores = score_transcripts([rollout.messages for rollout in rollouts], rows, crops, grounding)
    return [
        EvaluatedRollout(each.row, each.messages, score) for each, score in zip(rollouts, scores, strict=True)
    ]


def _metrics(done: dict[Condition, list[EvaluatedRollout]]) -> dict[str, float | int | None]:
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


def _accuracy(trajectories: Sequence[EvaluatedRollout]) -> float:
    return sum(trajectory.scored.accuracy for trajectory in trajectories) / len(trajectories)


def _format(trajectories: Sequence[EvaluatedRollout]) -> float:
    # The format term is 0 for a well-formed rollout and negative otherwise.
    return sum(trajectory.scored.format >= 0 for trajectory in trajectories) / len(trajectories)
