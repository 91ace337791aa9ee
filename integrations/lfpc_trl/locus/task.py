"""The LOCUS task: the prompt with a picture and a cue, and the reward for the box in the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lfpc_rewards import Frame, LocusParts, locus_parts
from lfpc_trl.data.rows import Row
from lfpc_trl.locus.cues import SCALE, cue_box
from lfpc_trl.pictures.lazy import LazyImage, Part, file_bytes
from lfpc_trl.pictures.sizes import Size, shown_size
from lfpc_trl.rollouts.prompts import Message

_TEXT = (
    "Image 1 shows a full scene. Image 2 is a region that was cut out of image 1. "
    "Find the place of image 2 in image 1. Think first between <think> and </think>, then give the box of "
    "the region in image 1 between <answer> and </answer> as [x1, y1, x2, y2] {coordinates}."
)
_COORDINATES = {
    Frame.SHOWN: "in pixels of image 1",
    Frame.RELATIVE_1000: "from 0 to 1000 in both directions of image 1",
}


@dataclass(frozen=True)
class CuePrompt:
    """Builds the prompt of a cue.

    Attributes:
        frame: the frame of the model's boxes.
        factor: pixels per side of a visual token.
        crop_tokens: maximum visual tokens of the cue.
    """

    frame: Frame
    factor: int
    crop_tokens: int

    def __call__(self, row: Row) -> list[Message]:
        """One message: the picture at its shown size, the cue, the task.

        Raises:
            OSError: the picture file is missing.
            ValueError: the row has no `shown_size`.
        """
        nbytes, (scene_size, cue_size) = file_bytes(row.image), self.sizes(row)
        scene = LazyImage(Part(str(row.image), nbytes, scene_size)).start()
        cue = LazyImage(Part(str(row.image), nbytes, cue_size, cue_box(row))).start()
        text = _TEXT.format(coordinates=_COORDINATES[self.frame])
        blocks = [
            {"type": "image", "image": scene},
            {"type": "image", "image": cue},
            {"type": "text", "text": text},
        ]
        return [{"role": "user", "content": blocks}]

    def sizes(self, row: Row) -> tuple[Size, Size]:
        """(width, height) in pixels of the picture and of the cue, as shown.

        Raises:
            ValueError: the row has no `shown_size`.
        """
        if row.shown_size is None:
            raise ValueError(f"{row.name} has no shown_size")
        box, scale = cue_box(row), row.extras[SCALE]
        width, height = (max(1, round(side * scale)) for side in (box[2] - box[0], box[3] - box[1]))
        return row.shown_size, shown_size((width, height), self.crop_tokens, factor=self.factor)


def score_cues(completions: Sequence[Any], rows: Sequence[Row], frame: Frame) -> LocusParts:
    """`locus_reward` of completions for cues; converts boxes from the model's frame to original pixels."""
    shown: Sequence[Any] | None = [row.shown_size for row in rows] if frame is Frame.SHOWN else None
    return locus_parts(
        completions,
        [cue_box(row) for row in rows],
        frame=frame,
        image_sizes=[row.size for row in rows],
        shown_sizes=shown,
    )


@dataclass(frozen=True)
class CueReward:
    """IoU of the answer's box with the cue's box. Also logged as "iou"."""

    __name__: ClassVar[str] = "grounding"
    frame: Frame

    def __call__(
        self,
        completions: Sequence[Any],
        row: Sequence[Row],
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,  # noqa: ARG002
    ) -> list[float]:
        """One score per completion."""
        scores: list[float] = score_cues(completions, row, self.frame).iou.tolist()
        if log_metric is not None:
            for score in scores:
                log_metric("iou", score)
        return scores


@dataclass(frozen=True)
class CueFormat:
    """1 for thinking followed by an answer, else 0."""

    __name__: ClassVar[str] = "format"
    frame: Frame

    def __call__(self, completions: Sequence[Any], row: Sequence[Row], **columns: Any) -> list[float]:  # noqa: ARG002
        """One score per completion."""
        scores: list[float] = score_cues(completions, row, self.frame).format.tolist()
        return scores
