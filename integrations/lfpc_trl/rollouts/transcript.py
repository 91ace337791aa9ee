"""Scores of rollouts, read from the transcript alone.

A crop counts if a tool message holds its picture, whatever the model wrote or the environment did. A tool
result that TRL dropped because it did not fit is not in the transcript, so it does not count. The scored box
is the one that was cut (`crops.crop_box`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lfpc_rewards import (
    ParsedCompletion,
    Reduce,
    accuracy_reward,
    format_reward,
    grounding_parts,
    parse_completions,
    tool_bonus,
)
from lfpc_rewards.parsing import has_image
from lfpc_rewards.rewards import IOU_WEIGHT, OVERLAP_THRESHOLD
from lfpc_trl.data.rows import Row
from lfpc_trl.pictures.crops import BOX_ERRORS, IMAGE_ERROR, BoxError, PixelBox, crop_size
from lfpc_trl.pictures.sizes import Size, tokens_of
from lfpc_trl.rollouts.crop_tool import NO_PICTURE, CropSettings, cut_box, picture_of
from lfpc_trl.rollouts.judge import Judge, Verdict
from lfpc_trl.rollouts.prompts import Message

Completion = Sequence[Message]
"""The messages after the prompt: assistant, tool, assistant, ..."""

ENDINGS = ("finished", "malformed", "cut", "over_long", "over_turn")
"""How a rollout ends; see `ending`."""
FAILURES = (*BOX_ERRORS, "other")
"""Why a tool call failed: the rule of the crop tool that it broke, or "other", such as an unknown tool."""
SEVERAL_FAILURES = tuple(IMAGE_ERROR)
"""One more reason, for questions about several pictures."""


@dataclass(frozen=True)
class GroundingSettings:
    """How crops are compared with the targets.

    Attributes:
        overlap_threshold: tau: the IoU part counts only if more than this share of the innermost target is
            covered; None drops the condition. Table 12.
        iou_weight: omega: weight of the IoU part; the rest is the corner distance. Our choice.
        reduce: which of several crops counts. Our choice; see `lfpc_rewards.grounding_reward`.
    """

    overlap_threshold: float | None = OVERLAP_THRESHOLD
    iou_weight: float = IOU_WEIGHT
    reduce: Reduce = "best"


@dataclass(frozen=True)
class ScoredRollout:
    """The scores of one rollout. NaN where a value does not apply (no targets, no crop).

    Attributes:
        answer: text of the final answer, None without one.
        turns: number of model turns.
        accuracy: 1 right, 0 wrong, NaN if a judge was asked and does not know.
        format: 0 well formed, -1 not.
        tool_bonus: 1 for a right answer after at least one delivered crop, else 0.
        grounding: the grounding reward; 0 without a crop, NaN without targets.
        crops: delivered crops in order, pixels of the original.
        failures: the reason of each failed call in order, each one of `FAILURES` or `SEVERAL_FAILURES`.
        iou: best IoU with a target box, without the reward's overlap condition; NaN without a crop or
            targets.
        overlap: covered share of the innermost target; NaN without a crop or targets.
        bbox_ratio: mean share of the picture that a crop covers; NaN without a crop.
        crop_tokens: mean visual tokens of a crop; NaN without one.
        verdict: the judge's verdict; None if the rules decided or there is no judge.
        pictures: number of pictures of the row.
        crop_images: for each crop, the number of its picture, from 1.
    """

    answer: str | None
    turns: int
    accuracy: float
    format: float
    tool_bonus: float
    grounding: float
    crops: tuple[PixelBox, ...]
    failures: tuple[str, ...]
    iou: float
    overlap: float
    bbox_ratio: float
    crop_tokens: float
    verdict: Verdict | None = None
    pictures: int = 1
    crop_images: tuple[int, ...] = ()

    @property
    def failed_calls(self) -> int:
        """Number of failed tool calls."""
        return len(self.failures)


def ending(completion: Completion, *, max_turns: int, complete: bool, calls: bool) -> str:
    """Classify how a rollout ended.

    Args:
        completion: its messages.
        max_turns: the most turns that a rollout may have.
        complete: whether its last token ends a turn; the messages do not tell.
        calls: whether calls could be parsed from the model's last turn; the messages do not tell.

    Returns:
        "finished": the last turn has no call, whatever it says. "malformed": its call could not be parsed, so
        TRL took the turn for text. "cut": inside a turn, at the token limit of a turn or of the trajectory.
        "over_long": the result of a call did not fit into the trajectory, so TRL dropped it, or it left no
        room for another turn. "over_turn": a call in the last turn allowed.
    """
    last = completion[-1]
    if last["role"] == "tool":
        return "over_long"
    if calls:
        turns = sum(message["role"] == "assistant" for message in completion)
        return "over_turn" if turns >= max_turns else "over_long"
    if not complete:
        return "cut"
    # As in the rewards: a call inside the thinking is not a call.
    return "malformed" if "<tool_call>" in _text(last).rpartition("</think>")[2] else "finished"


class Cut(NamedTuple):
    """A crop as it was cut.

    Attributes:
        image: the number of its picture, from 1.
        box: in pixels of that original.
    """

    image: int
    box: PixelBox


def delivered_crops(rollout: ParsedCompletion, row: Row, settings: CropSettings) -> tuple[Cut, ...]:
    """The crops of a rollout, in the order of delivery."""
    if row.shown_sizes is None:
        raise ValueError(f"{row.name} has no shown_size")
    cuts = []
    for crop in rollout.delivered_crops:
        try:
            image, picture = picture_of(row, crop.image)
            cuts.append(Cut(image, cut_box(crop.box, picture, settings)))
        except BoxError:
            # Our tool would have refused this call, so another tool wrote the transcript: nothing to score.
            continue
    return tuple(cuts)


def score_transcripts(
    completions: Sequence[Completion],
    rows: Sequence[Row],
    settings: CropSettings,
    grounding: GroundingSettings = GroundingSettings(),
    judge: Judge | None = None,
) -> list[ScoredRollout]:
    """Score rollouts, each against its row.

    Args:
        completions: message lists as TRL passes them to reward functions; pictures inside tool messages.
        rows: the row of each completion.
        settings: the settings with which crops were cut.
        grounding: how crops are compared with the targets.
        judge: decides answers that the rules cannot; without one they are wrong.
    """
    rollouts = parse_completions(completions)
    accuracy: Sequence[float]
    verdicts: Sequence[Verdict | None] = [None] * len(rows)
    if judge is None:
        accuracy = accuracy_reward(
            rollouts, [row.answer for row in rows], [row.choices for row in rows]
        ).tolist()
    else:
        accuracy, verdicts = judge.accuracy(rollouts, rows)
    well_formed = format_reward(rollouts)
    bonus = tool_bonus(rollouts, accuracy)
    crops = [delivered_crops(rollout, row, settings) for rollout, row in zip(rollouts, rows, strict=True)]
    parts = grounding_parts(
        [[cut.box for cut in cuts] for cuts in crops],
        [None if row.regions is None else list(row.regions) for row in rows],
        [[picture.size for picture in row.pictures] for row in rows],
        crop_images=[[cut.image for cut in cuts] for cuts in crops],
        target_images=[[target.image for target in row.targets] for row in rows],
        overlap_threshold=grounding.overlap_threshold,
        iou_weight=grounding.iou_weight,
        reduce=grounding.reduce,
    )
    scored = []
    for index, (rollout, row) in enumerate(zip(rollouts, rows, strict=True)):
        cuts = crops[index]
        sizes = [crop_size(cut.box, factor=settings.factor, max_tokens=settings.crop_tokens) for cut in cuts]
        shares = [_share(cut.box, row.pictures[cut.image - 1].size) for cut in cuts]
        scored.append(
            ScoredRollout(
                answer=rollout.answer,
                turns=rollout.turns,
                accuracy=accuracy[index],
                format=float(well_formed[index]),
                tool_bonus=float(bonus[index]),
                grounding=float(parts.total[index]),
                crops=tuple(cut.box for cut in cuts),
                failures=tuple(_failure(message) for message in completions[index] if _is_failure(message)),
                iou=float(parts.max_iou[index]) if cuts else math.nan,
                overlap=float(parts.overlap[index]) if cuts else math.nan,
                bbox_ratio=_mean(shares),
                crop_tokens=_mean([tokens_of(size, settings.factor) for size in sizes]),
                verdict=verdicts[index],
                pictures=len(row.pictures),
                crop_images=tuple(cut.image for cut in cuts),
            )
        )
    return scored


def _share(box: PixelBox, size: Size) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1) / (size[0] * size[1])


def _is_failure(message: Message) -> bool:
    if message["role"] != "tool" or has_image(message.get("content")):
        return False
    return _text(message) != NO_PICTURE  # an error is a dict as text, whatever tool the model named


_RULES = {str({"error": sentence}): rule for rule, sentence in (BOX_ERRORS | IMAGE_ERROR).items()}
"""The rule behind each error message that TRL shows the model. Whole texts are compared: the error for an
unknown tool holds the tool's name, which the model may have chosen to look like one of our sentences."""


def _failure(message: Message) -> str:
    return _RULES.get(_text(message), "other")


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(block.get("text", "") for block in content)
    return content or ""


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan
