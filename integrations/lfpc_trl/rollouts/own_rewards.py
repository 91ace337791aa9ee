"""The user's own rewards in addition to LFPC's: a batch function, or a published reward by name.

The setting `reward` names each with its weight: `my_module:my_reward=0.5`, `presets:deepeyes=1.0`.
"""

import dataclasses
import inspect
import math
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lfpc_rewards import Frame, parse_completions, presets
from lfpc_rewards.adapters.binding import Binding
from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError, did_you_mean, one_line
from lfpc_trl.own_code import OwnCode, load_code
from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.pictures.sizes import Size
from lfpc_trl.rollouts.judge import Judge
from lfpc_trl.rollouts.prompts import Message, question_text
from lfpc_trl.rollouts.transcript import Completion, ScoredRollout

PRESETS = "presets:"
"""Prefix of the names of published rewards."""


@dataclass(frozen=True)
class Attempt:
    """A rollout with its row: the input of the user's own reward.

    Boxes are `(x1, y1, x2, y2)` in pixels of the original, unless stated otherwise.

    Attributes:
        row_id: id of the row; the attempts of a group share it.
        question: without its options.
        choices: texts of the options, None for an open question.
        accepted: the accepted answers.
        targets: nested boxes per region, inner to outer; None for a row without.
        extras: the row's extra columns, whose names begin with `x_`.
        image: path of the original.
        image_size: (width, height) of the original.
        shown_size: (width, height) at which the model saw it.
        frame: the frame of the model's boxes: "shown", pixels of the shown picture, or "relative_1000".
        messages: the model's turns verbatim, calls inside them, and tool messages; a picture is
            {"type": "image", "image": a Pillow image}.
        answer: the final answer, None without one.
        turns: number of model turns.
        calls: the box of each call as the model wrote it, in `frame`; None for a call without a box.
        crops: the boxes that were cut and shown to the model, in order.
        failures: why other calls failed, see the metrics.
        ending: how the rollout ended, see the metrics.
        accuracy: 1 right, 0 wrong, NaN where the judge does not know.
        well_formed: whether every turn has the form that the prompt asks for.
        iou: best IoU of a crop with a target; NaN without either.
        overlap: covered share of the innermost target; NaN without a crop or targets.
    """

    row_id: str
    question: str
    choices: tuple[str, ...] | None
    accepted: tuple[str, ...]
    targets: list[list[list[float]]] | None
    extras: dict[str, Any]
    image: Path
    image_size: Size
    shown_size: Size | None
    frame: str
    messages: list[Message]
    answer: str | None
    turns: int
    calls: tuple[Any, ...]
    crops: tuple[PixelBox, ...]
    failures: tuple[str, ...]
    ending: str
    accuracy: float
    well_formed: bool
    iou: float
    overlap: float


def attempts(
    completions: Sequence[Completion],
    scored: Sequence[ScoredRollout],
    rows: Sequence[Row],
    endings: Sequence[str],
    frame: Frame,
) -> list[Attempt]:
    """Build the inputs of the user's own rewards; each argument has one entry per rollout."""
    parsed = parse_completions(completions)
    return [
        Attempt(
            row_id=row.id,
            question=row.question,
            choices=row.choices,
            accepted=row.answer,
            targets=None if row.regions is None else [region.tolist() for region in row.regions],
            extras=dict(row.extras),
            image=row.image,
            image_size=row.size,
            shown_size=row.shown_size,
            frame=frame.value,
            messages=list(messages),
            answer=each.answer,
            turns=each.turns,
            calls=tuple(crop.box for crop in rollout.crops),
            crops=each.crops,
            failures=each.failures,
            ending=ending,
            accuracy=each.accuracy,
            well_formed=each.format >= 0,
            iou=each.iou,
            overlap=each.overlap,
        )
        for messages, rollout, each, row, ending in zip(
            completions, parsed, scored, rows, endings, strict=True
        )
    ]


# --- names -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NamedReward:
    """An entry of the setting `reward`.

    Attributes:
        name: such as "my_module:my_reward" or "presets:deepeyes".
        weight: weight in the sum of the terms.
    """

    name: str
    weight: float

    @property
    def is_code(self) -> bool:
        """Whether it names the user's code."""
        return not self.name.startswith(PRESETS)

    @property
    def short(self) -> str:
        """Its name in logs."""
        return (
            self.name.partition(":")[2].partition(":")[0]
            if not self.is_code
            else self.name.rpartition(":")[2]
        )


def read_entry(text: Any) -> NamedReward:
    """Parse an entry of the setting `reward`: NAME or NAME=WEIGHT; the default weight is 1.

    Raises:
        UserError: the entry has another form.
    """
    name, sign, weight = text.rpartition("=") if isinstance(text, str) else ("", "", "")
    name, weight = (name, weight) if sign else (text, "1")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not isinstance(name, str) or ":" not in name or not math.isfinite(number):
        raise UserError(
            "reward must be module:function=WEIGHT, file.py:function=WEIGHT or presets:NAME=WEIGHT, "
            f"got {text!r}"
        )
    return NamedReward(name, number)


# --- functions of the user's own ---------------------------------------------------------------------


@dataclass(frozen=True)
class OwnReward:
    """The user's function as a TRL reward function.

    Args:
        code: the function; it takes a list of `Attempt` and returns a number or None for each.
        frame: the frame of the model's boxes.
    """

    code: OwnCode
    frame: Frame

    @property
    def __name__(self) -> str:
        """Its name in TRL's logs."""
        return self.code.short

    def __call__(
        self,
        completions: Sequence[Completion],
        scored: Sequence[ScoredRollout],
        row: Sequence[Row],
        ending: Sequence[str],
        **columns: Any,  # noqa: ARG002
    ) -> list[float | None]:
        """One score per completion.

        Raises:
            UserError: the function raised, or did not return a number or None for each attempt.
        """
        batch = attempts(completions, scored, row, ending, self.frame)
        try:
            scores = self.code.function(list(batch))
        except Exception as error:
            raise self._failed(error, batch) from error
        try:
            scores = list(scores)
        except TypeError:
            raise self._error(f"must return a list, got {type(scores).__name__}") from None
        if len(scores) != len(batch):
            raise self._error(
                f"must return one number for each of the {len(batch)} attempts, got {len(scores)}; "
                f"the first is about row {batch[0].row_id}"
            )
        return [self._number(score, attempt) for score, attempt in zip(scores, batch, strict=True)]

    def _number(self, score: Any, attempt: Attempt) -> float | None:
        if score is None:
            return None
        try:
            number = math.inf if isinstance(score, str) else float(score)
        except (TypeError, ValueError):
            number = math.inf
        if math.isinf(number):
            raise self._error(f"must return a finite number or None, got {score!r} for row {attempt.row_id}")
        return None if math.isnan(number) else number

    def _failed(self, error: Exception, batch: Sequence[Attempt]) -> UserError:
        """An error that names the line that raised, and the first attempt that raises on its own."""
        lines = [
            each for each in traceback.extract_tb(error.__traceback__) if each.filename == str(self.code.file)
        ]
        place = f" in line {lines[-1].lineno}" if lines else ""
        return self._error(
            f"raised {type(error).__name__}{place} for {self._failing(error, batch)} ({one_line(error)})"
        )

    def _failing(self, error: Exception, batch: Sequence[Attempt]) -> str:
        for attempt in batch:
            try:
                self.code.function([attempt])
            except Exception as again:
                if type(again) is type(error):
                    return f"row {attempt.row_id}"
        return f"the {len(batch)} attempts about row {batch[0].row_id} and others"

    def _error(self, rule: str) -> UserError:
        return UserError(f"reward {self.code.name}: {rule}")


# --- published rewards -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PresetReward:
    """A published reward as a TRL reward function.

    It gets the row columns that its parameters name. Its mode is "strict" unless the name ends with ":exact":
    the published versions have loopholes, which training finds.

    Args:
        name: such as "deepeyes" or "deepeyes:exact".
        judge: for the presets that use one.
    """

    name: str
    judge: Judge | None = None
    _binding: Binding = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name, _, mode = self.name.partition(":")
        if not inspect.isfunction(reward := getattr(presets, name, None)) or name == "batch_judge":
            raise UserError(
                f"reward presets:{self.name}: no such preset; the presets reference lists them"
                f"{did_you_mean(name, dir(presets))}"
            )
        if mode not in ("", "strict", "exact"):
            raise UserError(f"reward presets:{self.name}: the mode must be strict or exact, got {mode!r}")
        known = inspect.signature(reward).parameters
        options: dict[str, Any] = {"mode": mode or "strict"} if "mode" in known else {}
        if "judge" in known:
            options["judge"] = None if self.judge is None else self.judge.replies
        object.__setattr__(self, "_binding", Binding(reward, options=options))
        missing = sorted(set(self._binding.arguments(_COLUMNS)) - _COLUMNS)
        if missing:
            raise UserError(
                f"reward presets:{self.name}: needs {', '.join(missing)}, which rows do not have; "
                "call it from a function of your own"
            )

    @property
    def __name__(self) -> str:
        """Its name in TRL's logs."""
        return self.name.partition(":")[0]

    def __call__(
        self,
        completions: Sequence[Completion],
        row: Sequence[Row],
        **columns: Any,  # noqa: ARG002
    ) -> list[float | None]:
        """One score per completion.

        Raises:
            UserError: the preset refuses the rows, or needs a judge.
        """
        try:
            scores = self._binding.score(_columns_of(completions, row))["score"]
        except (TypeError, ValueError, KeyError) as error:
            raise UserError(f"reward presets:{self.name}: {one_line(error)}") from error
        return [None if math.isnan(score) else score for score in scores]

    def check(self, rows: Sequence[Row]) -> None:
        """Score an empty completion for every row, with a dummy judge that answers no.

        Raises:
            UserError: as when called.
        """
        options = dict(self._binding.options)
        if options.get("judge") is not None:
            options["judge"] = lambda questions, answers, golds: [False] * len(answers)  # noqa: ARG005
        trial = PresetReward(self.name)
        object.__setattr__(trial, "_binding", dataclasses.replace(self._binding, options=options))
        trial([[{"role": "assistant", "content": ""}]] * len(rows), rows)


_COLUMNS = frozenset(
    {
        "completions",
        "answers",
        "questions",
        "choices",
        "targets",
        "image_sizes",
        "shown_sizes",
        "images",
        "groups",
    }
)


def _columns_of(completions: Sequence[Completion], rows: Sequence[Row]) -> dict[str, Sequence[Any]]:
    columns: dict[str, Sequence[Any]] = {
        "completions": completions,
        "answers": [row.answer[0] for row in rows],
        "questions": [question_text(row) for row in rows],
        "image_sizes": [row.size for row in rows],
        "shown_sizes": [row.shown_size for row in rows],
        "images": [str(row.image) for row in rows],
        "groups": [row.id for row in rows],
        "choices": [row.choices for row in rows],
        "targets": [None if row.regions is None else list(row.regions) for row in rows],
    }
    assert columns.keys() == _COLUMNS
    return columns


def make_reward(entry: NamedReward, frame: Frame, judge: Judge | None) -> OwnReward | PresetReward:
    """The reward function of an entry.

    Raises:
        UserError: no such code or preset, or it needs columns that rows do not have.
    """
    if entry.is_code:
        return OwnReward(load_code(entry.name, "reward"), frame)
    return PresetReward(entry.name.removeprefix(PRESETS), judge)
