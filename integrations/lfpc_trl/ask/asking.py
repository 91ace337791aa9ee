"""One question about one picture: the rollout of an evaluation, told turn by turn while it happens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from lfpc_trl.data.rows import Row, check_row
from lfpc_trl.errors import UserError
from lfpc_trl.models.engines import Engine
from lfpc_trl.pictures.crops import PixelBox, crop_size
from lfpc_trl.pictures.sizes import Size, shown_size, tokens_of
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import ChatEngine, Job, RolloutSettings, Usage, images_of, one_rollout
from lfpc_trl.rollouts.prompts import Message
from lfpc_trl.rollouts.transcript import score_transcripts

LONGEST_QUESTION = 4000
"""Characters of a question at the keyboard. Our choice; an engine reserves memory for it when it starts."""


@dataclass(frozen=True)
class Look:
    """A crop that the model was shown.

    Attributes:
        box: pixels of the original.
        size: (width, height) at which the model saw it.
        tokens: its visual tokens.
        seconds: of the turn that asked for it; of several crops in one turn the first one has them.
        picture: the crop as the model saw it.
    """

    box: PixelBox
    size: Size
    tokens: int
    seconds: float
    picture: Image.Image


@dataclass(frozen=True)
class Answer:
    """What is known of a conversation; while it goes on, after each turn.

    Attributes:
        question: as it was asked.
        answer: the final answer; None where there is none, or none yet.
        turns: what the model wrote, turn by turn.
        looks: the crops that it was shown, in order.
        failures: why other calls were refused.
        seconds: since it was asked.
        usage: the tokens read and written; empty while it goes on.
    """

    question: str
    answer: str | None
    turns: tuple[str, ...]
    looks: tuple[Look, ...]
    failures: tuple[str, ...]
    seconds: float
    usage: Usage = field(default_factory=Usage)

    def as_json(self) -> dict[str, Any]:
        """Without the pictures."""
        return {
            "question": self.question,
            "answer": self.answer,
            "turns": list(self.turns),
            "looks": [
                {
                    "box": list(look.box),
                    "size": list(look.size),
                    "tokens": look.tokens,
                    "seconds": round(look.seconds, 3),
                }
                for look in self.looks
            ],
            "failures": list(self.failures),
            "seconds": round(self.seconds, 3),
            "tokens_read": self.usage.prompt_tokens,
            "tokens_written": self.usage.completion_tokens,
        }


def row_about(picture: Path, question: str, choices: Sequence[str] | None = None) -> Row:
    """A question as a row; nothing is known of its answer.

    Raises:
        UserError: an empty or too long question, options that cannot be, or no picture.
    """
    if len(question) > LONGEST_QUESTION:
        raise UserError(f"a question has at most {LONGEST_QUESTION} characters, got {len(question)}")
    record: dict[str, Any] = {"id": "question", "question": question, "answer": "?", "image": str(picture)}
    if choices:
        record |= {"choices": list(choices), "answer": choices[0]}
    return check_row(record, Path.cwd())


class Asker:
    """Asks about one picture.

    Args:
        engine: what writes the turns.
        crops: how crops are cut.
        settings: how turns are written.
        picture: the original.
        budget: visual tokens of the whole picture at most.
        choices: options that are shown with every question.
    """

    def __init__(
        self,
        engine: Engine | ChatEngine,
        crops: CropSettings,
        settings: RolloutSettings,
        picture: Path,
        budget: int,
        choices: Sequence[str] | None = None,
    ) -> None:
        self._engine, self._crops, self._settings = engine, crops, settings
        self.picture, self._choices = picture, choices
        self.size = row_about(picture, "?", choices).size
        self.shown = shown_size(self.size, budget, factor=crops.factor)
        self.tokens = tokens_of(self.shown, crops.factor)

    def ask(self, question: str, on_turn: Callable[[Answer], object] | None = None) -> Answer:
        """Ask one question.

        Args:
            question: the question.
            on_turn: told what is known after each turn.

        Raises:
            UserError: the question or the picture cannot be used, or the server gives no answer.
        """
        row = replace(row_about(self.picture, question, self._choices), shown_size=self.shown)
        story = _Story(row, self._crops)

        def turn(_: Job, messages: Sequence[Message]) -> None:
            told = story.after(messages)
            if on_turn is not None:
                on_turn(told)

        outcome = one_rollout(self._engine, Job(row, self._crops), self._settings, turn)
        if isinstance(outcome, Exception):
            raise UserError(f"{self.picture}: {outcome}") from outcome
        return story.after(outcome.messages, outcome.usage)


class _Story:
    """A conversation as it goes on."""

    def __init__(self, row: Row, crops: CropSettings) -> None:
        self.row, self._crops = row, crops
        self._start = self._turn = time.perf_counter()
        self._looks: list[Look] = []

    def after(self, messages: Sequence[Message], usage: Usage = Usage()) -> Answer:  # noqa: B008 - frozen
        """What is known after these messages."""
        now = time.perf_counter()
        [scored] = score_transcripts([list(messages)], [self.row], self._crops)
        pictures = images_of(messages)
        took = now - self._turn
        for box, picture in list(zip(scored.crops, pictures, strict=False))[len(self._looks) :]:
            size = crop_size(box, factor=self._crops.factor, max_tokens=self._crops.crop_tokens)
            self._looks.append(Look(box, size, tokens_of(size, self._crops.factor), took, picture))
            took = 0.0
        self._turn = now
        return Answer(
            question=self.row.question,
            answer=scored.answer,
            turns=tuple(each["content"] for each in messages if each["role"] == "assistant"),
            looks=tuple(self._looks),
            failures=scored.failures,
            seconds=now - self._start,
            usage=usage,
        )
