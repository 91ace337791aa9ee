"""The rules of resolution selection: from what a model answered at each size to the size of each row.

Every row has a ladder of levels, finest first. A level is a budget of visual tokens for each picture of the
row; all pictures share it, because the deciding answer is about all of them and separate levels would have to
be tried in every combination (our choice). Method `answer` (the paper's) selects the first level at which the
model's answer differs from its answer at the finest level: there the picture has lost what the question
needs, and only a crop can recover it. The steps of the ladder, the comparison of answers and the special
cases of `select_by_answers` are our choices; the paper does not state them.

Nothing here asks a model. The selection is a pure function of rows, ladders and answers.
"""

import dataclasses
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lfpc_rewards import answers_match
from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError, not_one_of
from lfpc_trl.own_code import load_code
from lfpc_trl.pictures.sizes import Size, budget_ladder, shown_size, tokens_of

Level = tuple[Size, ...]
"""The shown size of each picture of a row at one level."""
Answers = Mapping[tuple[str, Level], str | None]
"""The model's answers, by row id and shown sizes."""
SameAnswer = Callable[[str | None, str | None, Sequence[str] | None], bool]
"""Whether an answer equals the one at the finest level, given the row's choices."""


# --- ladders -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ladder:
    """The budgets at which a row is tried, in visual tokens.

    Attributes:
        finest: most tokens of the first level; a smaller picture starts at its own size, and so does None.
        coarsest: the last level of the halving.
        budgets: explicit levels in falling order; `finest` and `coarsest` are then the first and last.
    """

    finest: int | None = None
    coarsest: int = 64
    budgets: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.coarsest <= (self.coarsest if self.finest is None else self.finest):
            raise ValueError(
                f"needs 1 <= coarsest <= finest, got coarsest {self.coarsest} and finest {self.finest}"
            )

    @classmethod
    def of(cls, budgets: Sequence[int]) -> "Ladder":
        """A ladder of these budgets.

        Raises:
            ValueError: no budget, one below 1, or not in falling order.
        """
        if not budgets or min(budgets) < 1:
            raise ValueError(f"budgets must be at least 1 visual token each, got {list(budgets)}")
        if any(after >= before for before, after in itertools.pairwise(budgets)):
            raise ValueError(f"budgets must fall, got {list(budgets)}")
        return cls(budgets[0], budgets[-1], tuple(budgets))

    def sizes(self, original_size: Size, *, factor: int, limit: int) -> tuple[Size, ...]:
        """The distinct sizes at which a picture may be shown, finest first; see `levels`."""
        return tuple(size for (size,) in self.levels([original_size], factor=factor, limit=limit))

    def levels(self, pictures: Sequence[Size], *, factor: int, limit: int) -> tuple[Level, ...]:
        """The distinct levels of a row, finest first.

        Budgets fall from the largest picture's size; a smaller one shrinks when they fall below its size.

        Args:
            pictures: (width, height) in pixels of each picture of the row.
            factor: pixels per side of one visual token.
            limit: most visual tokens that the processor passes on; finer levels are capped there.
        """
        budgets: Sequence[int] = [min(budget, limit) for budget in self.budgets]
        if not budgets:
            finest = limit if self.finest is None else min(self.finest, limit)
            coarsest = min(self.coarsest, finest)
            budgets = max(
                (budget_ladder(size, factor=factor, finest=finest, coarsest=coarsest) for size in pictures),
                key=lambda ladder: ladder[0],
            )
        # A small picture has one size for many budgets, and a long strip cannot match every budget.
        return tuple(
            dict.fromkeys(
                tuple(shown_size(size, budget, factor=factor) for size in pictures) for budget in budgets
            )
        )


# --- answers -----------------------------------------------------------------------------------------


def same_answer(answer: str | None, reference: str | None, choices: Sequence[str] | None = None) -> bool:
    """Whether two answers of a model agree, by the comparison of the accuracy reward.

    A missing or empty answer equals only another missing one: a model that never answers has not changed its
    mind.
    """
    answer, reference = (answer or "").strip(), (reference or "").strip()
    if answer == reference or not answer or not reference:
        return answer == reference
    try:
        return answers_match(answer, reference, choices)
    except ValueError:  # the reference is none of the choices: compare texts
        return answers_match(answer, reference)


def exact_answer(answer: str | None, reference: str | None, choices: Sequence[str] | None = None) -> bool:  # noqa: ARG001
    """Whether two answers are the same text up to surrounding spaces; missing and empty are equal."""
    return (answer or "").strip() == (reference or "").strip()


def comparison(name: str) -> SameAnswer:
    """The comparison "rewards" or "exact", or the user's own function "module:function".

    Raises:
        UserError: no such function.
    """
    if name in COMPARISONS:
        return COMPARISONS[name]
    if ":" not in name:
        raise UserError(not_one_of("same-answer", name, [*COMPARISONS, "module:function"]))
    return load_code(name, "same-answer").function


COMPARISONS: dict[str, SameAnswer] = {"rewards": same_answer, "exact": exact_answer}


def first_change(
    answers: Sequence[str | None], choices: Sequence[str] | None, same: SameAnswer = same_answer
) -> int | None:
    """The first level whose answer differs from that of level 0; None if all agree."""
    changes = (n for n, answer in enumerate(answers) if n and not same(answer, answers[0], choices))
    return next(changes, None)


def known_answers(row: Row, levels: Sequence[Level], answers: Answers) -> list[str | None]:
    """The answers at the first levels, up to the first unanswered one."""
    known = itertools.takewhile(lambda level: (row.id, level) in answers, levels)
    return [answers[row.id, level] for level in known]


def is_decided(
    answers: Sequence[str | None], levels: int, choices: Sequence[str] | None, same: SameAnswer
) -> bool:
    """Whether these answers decide a row."""
    return len(answers) == levels or first_change(answers, choices, same) is not None


# --- selection ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """The outcome of a selection.

    Attributes:
        rows: the rows in their order, with `shown_size` and, among the extras, `selected_level` (0 is the
            finest) and, where the model was asked, `diverged` and `right_at_full`.
        summary: plain numbers for people and for JSON: `rows`, `method`, `levels` and `tokens` (counts of
            each selected level and number of visual tokens), `mean_tokens`, and for `answer` also
            `never_diverged`, `wrong_at_full` and `answers` (how often the model was asked).
    """

    rows: list[Row]
    summary: dict[str, Any]


def select_by_answers(
    rows: Sequence[Row],
    ladders: Sequence[Sequence[Level]],
    answers: Answers,
    *,
    factor: int,
    same: SameAnswer = same_answer,
) -> Selection:
    """The first level of each row whose answer differs from that at the finest level.

    A row whose answer never changes gets its coarsest level and `diverged` false. A row that the model gets
    wrong at the finest level is kept, handled alike, and has `right_at_full` false.

    Args:
        rows: rows; a `shown_size` they may have is replaced.
        ladders: levels of each row, finest first.
        answers: at least the deciding ones; others are ignored.
        factor: pixels per side of one visual token.
        same: the comparison of answers.

    Raises:
        ValueError: a needed answer is missing; names the row.
    """
    levels, extras, asked = [], [], 0
    for row, sizes in zip(rows, ladders, strict=True):
        given = known_answers(row, sizes, answers)
        if not is_decided(given, len(sizes), row.choices, same):
            raise ValueError(f"{row.name}: the answer at level {len(given)} is missing")
        changed = first_change(given, row.choices, same)
        levels.append(len(sizes) - 1 if changed is None else changed)
        asked += levels[-1] + 1
        right = answers_match(given[0], list(row.answer), row.choices)
        extras.append({"diverged": changed is not None, "right_at_full": right})
    selection = _selection(rows, ladders, levels, extras, method="answer", factor=factor)
    return Selection(
        selection.rows,
        selection.summary
        | {
            "never_diverged": sum(not extra["diverged"] for extra in extras),
            "wrong_at_full": sum(not extra["right_at_full"] for extra in extras),
            "answers": asked,
        },
    )


def select_by_rule(
    rows: Sequence[Row],
    ladders: Sequence[Sequence[Level]],
    *,
    method: Literal["hard", "random"],
    factor: int,
    seed: int = 0,
) -> Selection:
    """The paper's ablations, which do not ask the model.

    Args:
        rows: rows; a `shown_size` they may have is replaced.
        ladders: levels of each row, finest first.
        method: "hard" takes the coarsest level of each row; "random" one drawn uniformly, from the seed and
            the row's id.
        factor: pixels per side of one visual token.
        seed: of "random".
    """
    levels = [len(sizes) - 1 for sizes in ladders]
    if method == "random":
        # crc32 (not hash()) and one generator per row: the same draw in every process, order and shard.
        levels = [
            int(np.random.default_rng([seed, zlib.crc32(row.id.encode())]).integers(len(sizes)))
            for row, sizes in zip(rows, ladders, strict=True)
        ]
    return _selection(rows, ladders, levels, [{} for _ in rows], method=method, factor=factor)


def _selection(
    rows: Sequence[Row],
    ladders: Sequence[Sequence[Level]],
    levels: Sequence[int],
    extras: Sequence[Mapping[str, Any]],
    *,
    method: str,
    factor: int,
) -> Selection:
    sizes = [ladder[level] for ladder, level in zip(ladders, levels, strict=True)]
    selected = [
        dataclasses.replace(row.shown_at(shown), extras=row.extras | {"selected_level": level} | dict(extra))
        for row, shown, level, extra in zip(rows, sizes, levels, extras, strict=True)
    ]
    tokens = [sum(tokens_of(size, factor) for size in shown) for shown in sizes]
    summary = {
        "rows": len(rows),
        "method": method,
        "levels": _histogram(levels),
        "tokens": _histogram(tokens),
        "mean_tokens": float(np.mean(tokens)) if tokens else None,
    }
    return Selection(selected, summary)


def _histogram(values: Sequence[int]) -> dict[str, int]:
    """Counts by value, in order; keys are strings, as in JSON."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
