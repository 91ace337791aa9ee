"""The rules of resolution selection: from what a model answered at each size to the size of each row.

Every row has a ladder of levels, finest first. A level is a budget of visual tokens for each picture of the
row: one level for all of them, since the answer that decides is about all of them, and a level for each would
be asked at every combination (our choice). Method `answer` (the paper's) selects the first level at which
the model's answer is no longer the one it gave at the finest: there the picture has lost what the question
needs, and only a crop can bring it back. The steps of the ladder, what counts as the same answer, and what
happens to the rows described under `select_by_answers` are our choices; the paper does not state them.

Nothing here asks a model. The selection is a function of rows, ladders and answers, whatever the order in
which the answers came and whoever asked for them.
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
"""The size of each picture of a row at one level."""
Answers = Mapping[tuple[str, Level], str | None]
"""What the model answered, by the id of the row and the sizes at which its pictures were shown."""
SameAnswer = Callable[[str | None, str | None, Sequence[str] | None], bool]
"""Whether an answer is the same as the one at the finest level, given the row's choices."""


# --- ladders -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ladder:
    """Which sizes a row is tried at, in visual tokens.

    Attributes:
        finest: the most of the first level; a picture that has fewer, or None, starts with its own.
        coarsest: where halving ends.
        budgets: the levels themselves instead, falling; `finest` and `coarsest` are then their ends.
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
            ValueError: none, one below 1, or not falling.
        """
        if not budgets or min(budgets) < 1:
            raise ValueError(f"budgets must be at least 1 visual token each, got {list(budgets)}")
        if any(after >= before for before, after in itertools.pairwise(budgets)):
            raise ValueError(f"budgets must fall, got {list(budgets)}")
        return cls(budgets[0], budgets[-1], tuple(budgets))

    def sizes(self, original_size: Size, *, factor: int, limit: int) -> tuple[Size, ...]:
        """The sizes at which a picture may be shown, finest first, each once; see `levels`."""
        return tuple(size for (size,) in self.levels([original_size], factor=factor, limit=limit))

    def levels(self, pictures: Sequence[Size], *, factor: int, limit: int) -> tuple[Level, ...]:
        """The levels of a row, finest first, each once.

        Budgets fall from what the largest picture has; a smaller one follows when they reach it.

        Args:
            pictures: (width, height) in pixels of each picture of the row.
            factor: pixels per side of one visual token.
            limit: visual tokens that the processor lets through; finer levels are shown with so many.
        """
        budgets: Sequence[int] = [min(budget, limit) for budget in self.budgets]
        if not budgets:
            finest = limit if self.finest is None else min(self.finest, limit)
            coarsest = min(self.coarsest, finest)
            budgets = max(
                (budget_ladder(size, factor=factor, finest=finest, coarsest=coarsest) for size in pictures),
                key=lambda ladder: ladder[0],
            )
        # A small picture is its own finest level for many budgets, and a long strip cannot follow every one.
        return tuple(
            dict.fromkeys(
                tuple(shown_size(size, budget, factor=factor) for size in pictures) for budget in budgets
            )
        )


# --- answers -----------------------------------------------------------------------------------------


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


def exact_answer(answer: str | None, reference: str | None, choices: Sequence[str] | None = None) -> bool:  # noqa: ARG001
    """Whether two answers are the same text, spaces around it aside; missing and empty are one."""
    return (answer or "").strip() == (reference or "").strip()


def comparison(name: str) -> SameAnswer:
    """The comparison called "rewards" or "exact", or a function of the user's own, "module:function".

    Raises:
        UserError: there is no such function.
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
    """The first level whose answer is not that of level 0; None if there is none among these."""
    changes = (n for n, answer in enumerate(answers) if n and not same(answer, answers[0], choices))
    return next(changes, None)


def known_answers(row: Row, levels: Sequence[Level], answers: Answers) -> list[str | None]:
    """What was answered at the first levels, up to the first that was not asked."""
    known = itertools.takewhile(lambda level: (row.id, level) in answers, levels)
    return [answers[row.id, level] for level in known]


def is_decided(
    answers: Sequence[str | None], levels: int, choices: Sequence[str] | None, same: SameAnswer
) -> bool:
    """Whether a row with these answers needs no further question."""
    return len(answers) == levels or first_change(answers, choices, same) is not None


# --- selection ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Selection:
    """The outcome of a selection.

    Attributes:
        rows: the rows in their order, with `shown_size` and, among the extras, `selected_level` (0 is the
            finest) and, where the model was asked, `diverged` and `right_at_full`.
        summary: plain numbers for people and for JSON: `rows`, `method`, `levels` and `tokens` (how often
            each level and each number of visual tokens was selected), `mean_tokens`, and for `answer` also
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
        answers: at least those that decide; others do no harm.
        factor: pixels per side of one visual token.
        same: what counts as the same answer.

    Raises:
        ValueError: an answer that is needed is missing; the row is named.
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
    """The paper's ablations, which ask the model nothing.

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
        # crc32, not hash(), and one generator per row: the same draw in every process, order and shard.
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
    """Value to how often, in order; texts as keys, because JSON has no others."""
    return {str(value): count for value, count in sorted(Counter(values).items())}
