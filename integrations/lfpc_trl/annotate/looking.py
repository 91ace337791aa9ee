"""A model that proposes boxes by looking at a row: the only module here that needs what runs a model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from lfpc_trl.annotate.proposals import Proposal
from lfpc_trl.data.rows import Row
from lfpc_trl.errors import UserError, one_line
from lfpc_trl.models.engines import Engine
from lfpc_trl.models.weights import no_progress_bars
from lfpc_trl.rollouts.crop_tool import CropSettings
from lfpc_trl.rollouts.generate import ChatEngine, Job, RolloutSettings, one_rollout
from lfpc_trl.rollouts.respondent import Open
from lfpc_trl.rollouts.transcript import score_transcripts


@dataclass(frozen=True)
class Looker:
    """Proposes what a model looks at: the crops of the rollout that an evaluation would make.

    Attributes:
        name: of the model.
        open: opens the model; called once, by the first row.
        crops: how crops are cut.
        settings: how turns are written.
        check: raises `UserError` for a question that this model cannot be asked.
    """

    name: str
    open: Open
    crops: CropSettings
    settings: RolloutSettings
    check: Callable[[Row], object]

    @cached_property
    def _engine(self) -> Engine | ChatEngine:
        with no_progress_bars():
            return self.open()

    def __call__(self, row: Row) -> list[Proposal]:
        """The crops that the model was shown.

        Raises:
            UserError: the model cannot be asked this, cannot be opened, or gives no answer.
        """
        self.check(row)
        outcome = one_rollout(self._engine, Job(row, self.crops), self.settings)
        if isinstance(outcome, Exception):
            raise UserError(one_line(outcome)) from outcome
        [scored] = score_transcripts([outcome.messages], [row], self.crops)
        found = zip(scored.crops, scored.crop_images, strict=True)
        return list(dict.fromkeys(Proposal(box, self.name, image) for box, image in found))
