"""A sample of the rollouts of a training, kept in Parquet files that a kill cannot damage.

The columns are described in `docs/reference/trajectories.md`.
"""

import dataclasses
import io
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lfpc_rewards import parse_completions
from lfpc_rewards.parsing import is_image
from lfpc_trl.data.rows import Row
from lfpc_trl.files import whole_file
from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.pictures.lazy import LazyImage, Noise, Part
from lfpc_trl.pictures.sizes import Size
from lfpc_trl.rollouts.prompts import Message
from lfpc_trl.rollouts.transcript import Completion, ScoredRollout

if TYPE_CHECKING:
    import pyarrow as pa

DIRECTORY = "trajectories"
"""Name of the directory inside that of a run."""
THUMBNAIL_SIDE = 256
"""Longer side of a thumbnail in pixels. Our choice: signs stay recognisable at about 10 KB each."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One logged rollout; the attributes are the columns.

    Attributes:
        step: step of the training, from 1.
        group: which of the logged groups of the step, from 0.
        rollout: which rollout of its group, from 0.
        row_id: id of the row.
        question: the question without its options.
        choices: the options, None for an open question.
        accepted: the accepted answers.
        image: path of the original, of the first of several.
        image_size: (width, height) of that original.
        messages: the whole conversation; pictures are {"type": "image", "thumbnail": index}.
        thumbnails: the pictures of the conversation in order, small JPEG files.
        answer: the final answer, None without one.
        ending: how the rollout ended, one of `transcript.ENDINGS`.
        masked: whether the rollout was left out of the loss.
        boxes: delivered crops in order, pixels of the original.
        targets: nested boxes per region, inner to outer, pixels of the original; None without targets.
        scores: the reward terms before their weights, None where a term does not apply.
        reward: the weighted sum.
        advantage: what the loss multiplies with.
        images: paths of all originals of a question about several pictures; empty for one about one.
        image_sizes: (width, height) of each of these.
        box_images: the number of the picture that each of `boxes` is of, from 1.
        target_images: the number of the picture that each region of `targets` is on, from 1.
    """

    step: int
    group: int
    rollout: int
    row_id: str
    question: str
    choices: tuple[str, ...] | None
    accepted: tuple[str, ...]
    image: str
    image_size: Size
    messages: list[Message]
    thumbnails: tuple[bytes, ...]
    answer: str | None
    ending: str
    masked: bool
    boxes: tuple[PixelBox, ...]
    targets: list[list[list[float]]] | None
    scores: dict[str, float | None]
    reward: float | None
    advantage: float | None
    images: tuple[str, ...] = ()
    image_sizes: tuple[Size, ...] = ()
    box_images: tuple[int, ...] = ()
    target_images: tuple[int, ...] = ()


SEVERAL = ("images", "image_sizes", "box_images", "target_images")
"""Columns that a file has only where some question of it is about several pictures."""


def about_pictures(row: Row, crop_images: Sequence[int]) -> dict[str, Any]:
    """What a trajectory says of the pictures of its row.

    Args:
        row: the row.
        crop_images: the number of each crop's picture.
    """
    known: dict[str, Any] = {
        "image": str(row.image),
        "image_size": row.size,
        "targets": None if row.regions is None else [region.tolist() for region in row.regions],
    }
    if len(row.pictures) > 1:
        known |= {
            "images": tuple(str(picture.image) for picture in row.pictures),
            "image_sizes": tuple(picture.size for picture in row.pictures),
            "box_images": tuple(crop_images),
            "target_images": tuple(target.image for target in row.targets),
        }
    return known


def schema(*, several: bool = False) -> "pa.Schema":
    """The columns of a file of trajectories.

    Args:
        several: whether some question of it is about several pictures.
    """
    import pyarrow as pa  # takes a while: not for those who only import the module

    numbers, text = pa.list_(pa.int32()), pa.string()
    more = {"images": pa.list_(text), "image_sizes": pa.list_(numbers)}
    more |= {"box_images": numbers, "target_images": numbers}
    return pa.schema(
        {
            "step": pa.int32(),
            "group": pa.int32(),
            "rollout": pa.int32(),
            "row_id": text,
            "question": text,
            "choices": pa.list_(text),
            "accepted": pa.list_(text),
            "image": text,
            "image_size": numbers,
            "messages": text,
            "thumbnails": pa.list_(pa.binary()),
            "answer": text,
            "ending": text,
            "masked": pa.bool_(),
            "boxes": pa.list_(numbers),
            "targets": pa.list_(pa.list_(pa.list_(pa.float64()))),
            "scores": pa.map_(text, pa.float64()),
            "reward": pa.float64(),
            "advantage": pa.float64(),
        }
        | (more if several else {})
    )


# --- writing -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TrajectoryLog:
    """Where and how often rollouts are kept.

    Attributes:
        directory: made when it is first written to.
        every: a step in so many is logged, the first one always.
        groups: groups logged per step; 0 logs nothing.
    """

    directory: Path
    every: int = 1
    groups: int = 2

    def __post_init__(self) -> None:
        if self.every < 1 or self.groups < 0:
            raise ValueError(
                f"every must be at least 1 and groups at least 0, got {self.every} and {self.groups}"
            )

    def wants(self, step: int) -> bool:
        """Whether rollouts of this step are to be kept."""
        return self.groups > 0 and (step - 1) % self.every == 0

    def write(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Write the file of a step, whole or not at all."""
        import pyarrow as pa
        from pyarrow import parquet

        self.directory.mkdir(parents=True, exist_ok=True)
        columns = [as_columns(trajectory) for trajectory in trajectories]
        several = any(trajectory.images for trajectory in trajectories)
        table = pa.Table.from_pylist(columns, schema=schema(several=several))
        with whole_file(self._file(step)) as draft:
            parquet.write_table(table, draft, compression="zstd")

    def forget_after(self, step: int) -> None:
        """Remove the files of later steps, which are about to be done again, and what a kill left half."""
        for path in [*self.directory.glob("*.tmp"), *_files(self.directory)]:
            if path.suffix == ".tmp" or _step_of(path) > step:
                path.unlink()

    def _file(self, step: int) -> Path:
        return self.directory / f"step-{step:06d}.parquet"


def as_columns(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as a row of `schema`."""
    columns = {name: _encodable(value) for name, value in vars(trajectory).items()}
    columns["messages"] = json.dumps(trajectory.messages, default=str)
    columns["scores"] = list(trajectory.scores.items())
    return columns


def _encodable(value: Any) -> Any:
    """Half a surrogate pair is a legal text in JSON and in Python, and cannot be written as UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return [_encodable(each) for each in value] if isinstance(value, tuple) else value


# --- from a round of rollouts ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Round:
    """Rollouts of one step, group after group; one entry per rollout.

    Attributes:
        rows: what each was about.
        prompts: the messages before it.
        completions: its messages.
        scored: its scores, with its answer and its crops; None for tasks without crops.
        endings: how it ended.
        scores: (rollouts, terms) of the reward, NaN where a term does not apply.
    """

    rows: Sequence[Row]
    prompts: Sequence[Completion]
    completions: Sequence[Completion]
    scored: Sequence[ScoredRollout] | None
    endings: Sequence[str]
    scores: Sequence[Sequence[float]]

    def trajectories(
        self,
        step: int,
        *,
        group_size: int,
        weights: dict[str, float],
        advantages: Sequence[float],
        masked: frozenset[str],
    ) -> list[Trajectory]:
        """What is written of these rollouts.

        Args:
            step: step of the training.
            group_size: rollouts of a group.
            weights: weight of each term by name, in the order of the scores.
            advantages: what the loss of each rollout is multiplied with.
            masked: the endings that are left out of the loss.
        """
        small: dict[Part | Noise, bytes] = {}  # a group shares the picture it is shown
        trajectories = []
        if self.scored is None:
            answers = [rollout.answer for rollout in parse_completions(self.completions)]
        else:
            answers = [rollout.answer for rollout in self.scored]
        for index, row in enumerate(self.rows):
            messages, pictures = without_pictures([*self.prompts[index], *self.completions[index]])
            for picture in pictures:
                if picture.recipe not in small:
                    small[picture.recipe] = thumbnail(picture)
            scores = {
                name: None if math.isnan(score) else score
                for name, score in zip(weights, self.scores[index], strict=True)
            }
            trajectories.append(
                Trajectory(
                    step=step,
                    group=index // group_size,
                    rollout=index % group_size,
                    row_id=row.id,
                    question=row.question,
                    choices=row.choices,
                    accepted=row.answer,
                    messages=messages,
                    thumbnails=tuple(small[picture.recipe] for picture in pictures),
                    answer=answers[index],
                    ending=self.endings[index],
                    masked=self.endings[index] in masked,
                    boxes=() if self.scored is None else self.scored[index].crops,
                    scores=scores,
                    reward=sum(weights[name] * score for name, score in scores.items() if score is not None),
                    advantage=advantages[index],
                    **about_pictures(row, () if self.scored is None else self.scored[index].crop_images),
                )
            )
        return trajectories


def without_pictures(messages: Sequence[Message], first: int = 0) -> tuple[list[Message], list[LazyImage]]:
    """The messages with {"type": "image", "thumbnail": index} for each picture, and these pictures.

    Args:
        messages: messages with pictures.
        first: index of the first picture.
    """
    pictures: list[LazyImage] = []
    plain = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, list):
            blocks = []
            for block in content:
                if is_image(block):
                    blocks.append({"type": "image", "thumbnail": first + len(pictures)})
                    pictures.append(block["image"])
                else:
                    blocks.append(block)
            message = message | {"content": blocks}
        plain.append(message)
    return plain, pictures


def thumbnail(image: Image.Image) -> bytes:
    """A picture as a small JPEG file."""
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


# --- reading -----------------------------------------------------------------------------------------


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """The logged rollouts of a run.

    Args:
        path: a file of one step, a directory of such files, or the directory of a run.

    Returns:
        In the order of steps, groups and rollouts; nothing for a directory without any.

    Raises:
        FileNotFoundError: there is no such file or directory.
    """
    from pyarrow import parquet

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    files = [path] if path.is_file() else _files(path / DIRECTORY) or _files(path)
    return [_trajectory(columns) for file in files for columns in parquet.read_table(file).to_pylist()]


def _trajectory(columns: dict[str, Any]) -> Trajectory:
    # Beside one about several pictures, a rollout about one has nothing in their columns.
    columns |= {name: columns.get(name) or [] for name in SEVERAL}
    lists = {name: value for name, value in columns.items() if isinstance(value, list) and name != "targets"}
    return Trajectory(
        **columns
        | {name: tuple(value) for name, value in lists.items()}
        | {
            "messages": json.loads(columns["messages"]),
            "scores": dict(columns["scores"]),
            "boxes": tuple(tuple(box) for box in columns["boxes"]),
            "image_sizes": tuple(map(tuple, columns["image_sizes"])),
        }
    )


def _files(directory: Path) -> list[Path]:
    files = [path for path in directory.glob("step-*.parquet") if re.fullmatch(r"step-\d+", path.stem)]
    return sorted(files, key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))
