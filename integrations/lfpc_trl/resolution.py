"""How coarsely each picture is shown in stage 1: chosen once per row, before training, by the model itself.

Every row has a ladder of token budgets, from the picture's own down to the coarsest, each half of the one
before. Method `answer` (the paper's) asks the model the question at each level, finest first and without the
crop tool, and selects the first level at which its answer is no longer the one it gave at the finest: there
the picture has lost what the question needs, and only a crop can bring it back. The ladder, greedy decoding,
what counts as the same answer, and what happens to the rows described under `select_resolution` are our
choices; the paper does not state them.
"""

import dataclasses
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from lfpc_rewards import Frame, answers_match
from lfpc_trl.crop_tool import CropSettings
from lfpc_trl.images import Size, budget_ladder, shown_size, tokens_of
from lfpc_trl.models import factor as factor_of
from lfpc_trl.rollouts import generate_rollouts
from lfpc_trl.rows import Row
from lfpc_trl.transcript import score_transcripts

Method = Literal["answer", "hard", "random"]


@dataclass(frozen=True)
class Selection:
    """The outcome of `select_resolution`.

    Attributes:
        rows: the rows in their order, with `shown_size` and, among the extras, `selected_level` (0 is the
            finest) and, where the model was asked, `diverged` and `right_at_full`.
        summary: plain numbers for people and for JSON: `rows`, `method`, `finest`, `coarsest`, `levels` and
            `tokens` (how often each level and each number of visual tokens was selected), `mean_tokens`, and
            for `answer` also `never_diverged`, `wrong_at_full` and `answers` (how often the model was asked).
    """

    rows: list[Row]
    summary: dict[str, Any]


def ladder_sizes(row: Row, *, factor: int, finest: int, coarsest: int) -> list[Size]:
    """The sizes at which a row's picture may be shown, finest first, each once.

    Args:
        row: the row.
        factor: pixels per side of one visual token.
        finest: largest number of visual tokens.
        coarsest: number of visual tokens at which the ladder ends.
    """
    budgets = budget_ladder(row.size, factor=factor, finest=finest, coarsest=coarsest)
    # Long strips cannot follow every budget: two of them may give one size.
    return list(dict.fromkeys(shown_size(row.size, budget, factor=factor) for budget in budgets))


def same_answer(answer: str | None, reference: str | None, choices: Sequence[str] | None = None) -> bool:
    """Whether two answers of a model say the same, by the comparison of the accuracy reward.

    A missing or empty answer differs from every answer and equals another missing one: a model that never
    answers has not changed its mind.
    """
    answer, reference = (answer or "").strip(), (reference or "").strip()
    if answer == reference or not answer or not reference:
        return answer == reference
    try:
        return answers_match(answer, reference, choices)
    except ValueError:  # the reference names none of the choices: compare the texts
        return answers_match(answer, reference)


def select_resolution(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    *,
    method: Method = "answer",
    finest: int | None = None,
    coarsest: int = 64,
    seed: int = 0,
    max_new_tokens: int = 2048,
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> Selection:
    """Choose the size at which each row's picture is shown.

    * `answer`: the first level whose answer differs from the answer at the finest level (greedy, tool not
      offered). A row whose answer never changes gets the coarsest level and `diverged` false. A row that the
      model gets wrong at the finest level is kept, handled alike, and has `right_at_full` false.
    * `hard`: the coarsest level of each row (ablation).
    * `random`: a level drawn uniformly, from the seed and the row's id (ablation).

    Args:
        model: the very model that is to be trained; not used, and may be None, unless the method is `answer`.
        processor: its processor.
        rows: rows; a `shown_size` they may have is replaced.
        method: as above.
        finest: visual tokens of the finest level; None for as many as the picture has, within the
            processor's limit.
        coarsest: visual tokens of the coarsest level.
        seed: of `random`.
        max_new_tokens: limit on the tokens of one answer.
        batch_size: rows asked at a time.
        progress: called with a number of rows; adds up to all of them.

    Returns:
        New rows and a summary.

    Raises:
        ValueError: an unknown method, or not 1 <= coarsest <= finest.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}, got {method!r}")
    factor = factor_of(processor)
    limit = int(processor.image_processor.size["longest_edge"]) // factor**2
    finest = limit if finest is None else min(finest, limit)
    ladders = [ladder_sizes(row, factor=factor, finest=finest, coarsest=coarsest) for row in rows]
    flags: list[dict[str, Any]] = [{} for _ in rows]
    answers = 0
    if method == "answer":
        levels, flags, answers = _diverging_levels(
            model, processor, rows, ladders, factor, max_new_tokens, batch_size, progress
        )
    elif method == "hard":
        levels = [len(ladder) - 1 for ladder in ladders]
    else:
        # crc32, not hash(), and one generator per row: the same draw in every process, order and shard.
        levels = [
            int(np.random.default_rng([seed, zlib.crc32(row.id.encode())]).integers(len(ladder)))
            for row, ladder in zip(rows, ladders, strict=True)
        ]
    if method != "answer" and progress is not None:
        progress(len(rows))
    sizes = [ladder[level] for ladder, level in zip(ladders, levels, strict=True)]
    extras = [{"selected_level": level} | flag for level, flag in zip(levels, flags, strict=True)]
    selected = [
        dataclasses.replace(row, shown_size=size, extras=row.extras | extra)
        for row, size, extra in zip(rows, sizes, extras, strict=True)
    ]
    tokens = [tokens_of(size, factor) for size in sizes]
    summary: dict[str, Any] = {
        "rows": len(rows),
        "method": method,
        "finest": finest,
        "coarsest": coarsest,
        "levels": _histogram(levels),
        "tokens": _histogram(tokens),
        "mean_tokens": float(np.mean(tokens)) if tokens else None,
    }
    if method == "answer":
        summary |= {
            "never_diverged": sum(not flag["diverged"] for flag in flags),
            "wrong_at_full": sum(not flag["right_at_full"] for flag in flags),
            "answers": answers,
        }
    return Selection(selected, summary)


def _diverging_levels(
    model: Any,
    processor: Any,
    rows: Sequence[Row],
    ladders: Sequence[Sequence[Size]],
    factor: int,
    max_new_tokens: int,
    batch_size: int,
    progress: Callable[[int], object] | None,
) -> tuple[list[int], list[dict[str, Any]], int]:
    """Selected level and flags of each row, and the number of questions asked.

    Level by level for all rows at once: a row leaves as soon as its answer changes.
    """
    # No box is read when the tool is not offered, so the frame does not matter.
    settings = CropSettings(frame=Frame.SHOWN, factor=factor)
    references: list[str | None] = [None] * len(rows)
    levels = [len(ladder) - 1 for ladder in ladders]
    flags: list[dict[str, Any]] = [{"diverged": False, "right_at_full": False} for _ in rows]
    open_rows = list(range(len(rows)))
    asked, level = 0, 0
    report = _Progress(progress, len(rows), sum(map(len, ladders)))
    while open_rows:
        shown = [dataclasses.replace(rows[index], shown_size=ladders[index][level]) for index in open_rows]
        rollouts = generate_rollouts(
            model,
            processor,
            shown,
            crop_settings=settings,
            tools=False,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=report,
        )
        asked += len(shown)
        still_open = []
        scores = score_transcripts([rollout.messages for rollout in rollouts], shown, settings)
        for index, scored in zip(open_rows, scores, strict=True):
            if level == 0:
                references[index] = scored.answer
                flags[index]["right_at_full"] = scored.accuracy > 0
            elif not same_answer(scored.answer, references[index], rows[index].choices):
                levels[index], flags[index]["diverged"] = level, True
                report(len(ladders[index]) - level - 1)
                continue
            if level + 1 < len(ladders[index]):
                still_open.append(index)
        open_rows, level = still_open, level + 1
    return levels, flags, asked


class _Progress:
    """Turns steps of many kinds, whose sum is known beforehand, into whole rows."""

    def __init__(self, progress: Callable[[int], object] | None, rows: int, steps: int) -> None:
        self.progress, self.rows, self.steps = progress, rows, steps
        self.done = self.told = 0

    def __call__(self, steps: int) -> None:
        self.done += steps
        rows = self.rows * self.done // self.steps
        if self.progress is not None and rows > self.told:
            self.progress(rows - self.told)
            self.told = rows


def _histogram(values: Sequence[int]) -> dict[str, int]:
    """Value to how often, in order; texts as keys, because JSON has no others."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
