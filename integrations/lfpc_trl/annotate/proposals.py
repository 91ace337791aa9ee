"""Boxes that a model proposes for a row: its crops. None is a target until an annotator accepts it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError
from lfpc_trl.html.background import Background
from lfpc_trl.pictures.crops import PixelBox


class Proposal(NamedTuple):
    """A box that a model proposes.

    Attributes:
        box: pixels of the original.
        by: the name of the model, or of the run that holds the crop.
        image: the number of the picture, from 1.
    """

    box: PixelBox
    by: str
    image: int = 1


class Model(Protocol):
    """Who is asked on the page."""

    @property
    def name(self) -> str:
        """As the page and the journal call it."""

    def __call__(self, row: Row) -> list[Proposal]:
        """The boxes that it proposes for a row, each once; the row says at which sizes it is shown."""


class Proposals:
    """The proposals for each row: those of a run, and those that a model is asked for, one row at a time.

    Attributes:
        model: who is asked; None where nobody is.
        row: the id of the row for which it was asked last.

    Args:
        of_run: proposals per row that are there from the start, best first.
        model: who is asked.
    """

    def __init__(
        self, of_run: Mapping[str, Sequence[Proposal]] | None = None, model: Model | None = None
    ) -> None:
        self.model = model
        self.row: str | None = None
        self._of_run = of_run or {}
        self._asked: dict[str, list[Proposal]] = {}
        self._work = Background()

    def of(self, row: str) -> list[Proposal]:
        """The proposals for a row, those of the model first."""
        return list(dict.fromkeys([*self._asked.get(row, ()), *self._of_run.get(row, ())]))

    def ask(self, row: Row) -> bool:
        """Start to ask the model about a row; False where it is still at work on another request.

        What it proposed for the row before is forgotten.

        Raises:
            UserError: there is no model.
        """
        model = self.model
        if model is None:
            raise UserError("no model was given that proposes boxes: start with --model or --endpoint")

        def work() -> None:
            self._asked[row.id] = model(row)

        def begin() -> None:
            self.row = row.id
            self._asked.pop(row.id, None)

        return self._work.start(work, begin)

    def state(self, row: str) -> dict[str, object]:
        """What the page shows: the row that the model works on, why it failed, the proposals of `row`."""
        with self._work.lock:
            own = row == self.row
            return {
                "busy": self.row if self._work.busy else None,
                "failure": self._work.problem if own else None,
                "proposals": [proposal._asdict() for proposal in self.of(row)],
            }
