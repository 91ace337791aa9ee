"""A sample of the rollouts of a training, saved in Parquet files that a kill cannot damage.

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
from lfpc_trl.files import atomic_file
from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.pictures.lazy import LazyImage, Noise, Part
from lfpc_trl.pictures.sizes import Size
from lfpc_trl.rollouts.prompts import Message
from lfpc_trl.rollouts.transcript import Completion, ScoredRollout

if TYPE_CHECKING:
    import pyarrow as pa

DIRECTORY = "trajectories"
"""Name of the subdirectory of a run."""
THUMBNAIL_SIDE = 256
"""Longer side of a thumbnail in pixels. Our choice: signs stay recognizable at about 10 KB each."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """One logged rollout; the attributes are the columns.

    Attributes:
        step: training step, from 1.
        group: index of the group among the logged groups of the step, from 0.
        rollout: index of the rollout in its group, from 0.
        row_id: id of the row.
        question: the question without its options.
        choices: the options, None for an open question.
        accepted: the accepted answers.
        image: path of the original; of several, the first.
        image_size: (width, height) of that original.
        messages: the whole conversation; pictures are {"type": "image", "thumbnail": index}.
        thumbnails: the pictures of the conversation in order, small JPEG files.
        answer: the final answer, None without one.
        ending: how the rollout ended, one of `transcript.ENDINGS`.
        masked: whether the rollout was excluded from the loss.
        boxes: delivered crops in order, pixels of the original.
        targets: nested boxes per region, inner to outer, pixels of the original; None without targets.
        scores: the unweighted reward terms, None where a term does not apply.
        reward: the weighted sum.
        advantage: the advantage in the loss.
        verdict: the judge's "yes", "no" or "unknown"; None if the rules decided or there is no judge.
        verdict_cost: cost of the judge's call, in its own unit; 0 if the verdict was reused.
        images: paths of all originals of a question about several pictures; empty for a question about one.
        image_sizes: (width, height) of each of these.
        box_images: the picture number of each of `boxes`, from 1.
        target_images: the picture number of each region of `targets`, from 1.
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
    verdict: str | None = None
    verdict_cost: float | None = None
    images: tuple[str, ...] = ()
    image_sizes: tuple[Size, ...] = ()
    box_images: tuple[int, ...] = ()
    target_images: tuple[int, ...] = ()


SEVERAL = ("images", "image_sizes", "box_images", "target_images")
"""Columns that a file has only if one of its questions is about several pictures."""


def picture_fields(row: Row, crop_images: Sequence[int]) -> dict[str, Any]:
    """The fields of a trajectory that describe the pictures of its row.

    Args:
        row: the row.
        crop_images: the picture number of each crop.
    """
    fields: dict[str, Any] = {
        "image": str(row.image),
        "image_size": row.size,
        "targets": None if row.regions is None else [region.tolist() for region in row.regions],
    }
    if len(row.pictures) > 1:
        fields |= {
            "images": tuple(str(picture.image) for picture in row.pictures),
            "image_sizes": tuple(picture.size for picture in row.pictures),
            "box_images": tuple(crop_images),
            "target_images": tuple(target.image for target in row.targets),
        }
    return fields


def schema(*, several: bool = False) -> "pa.Schema":
    """The Arrow schema of a trajectory file.

    Args:
        several: whether one of its questions is about several pictures.
    """
    import pyarrow as pa  # slow to import, so not at module level

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
            "verdict": text,
            "verdict_cost": pa.float64(),
        }
        | (more if several else {})
    )


# --- writing -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class TrajectoryLog:
    """Where and how often rollouts are logged.

    Attributes:
        directory: created at the first write.
        every: log every this many steps, starting with the first.
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
        """Whether rollouts of this step are logged."""
        return self.groups > 0 and (step - 1) % self.every == 0

    def write(self, step: int, trajectories: Sequence[Trajectory]) -> None:
        """Write the file of a step atomically."""
        import pyarrow as pa
        from pyarrow import parquet

        self.directory.mkdir(parents=True, exist_ok=True)
        columns = [as_columns(trajectory) for trajectory in trajectories]
        several = any(trajectory.images for trajectory in trajectories)
        table = pa.Table.from_pylist(columns, schema=schema(several=several))
        with atomic_file(self._file(step)) as draft:
            parquet.write_table(table, draft, compression="zstd")

    def forget_after(self, step: int) -> None:
        """Remove the files of later steps, which are about to be run again, and unfinished files."""
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
    """Replace lone surrogates, which JSON and Python allow in texts but UTF-8 does not."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    return [_encodable(each) for each in value] if isinstance(value, tuple) else value


# --- from a round of rollouts ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Round:
    """The rollouts of one step, group by group; each attribute has one entry per rollout.

    Attributes:
        rows: their rows.
        prompts: the messages of the prompt.
        completions: the messages of the rollout.
        scored: scores, answer and crops; None for tasks without crops.
        endings: how the rollout ended.
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
        """The trajectories of these rollouts.

        Args:
            step: training step.
            group_size: rollouts per group.
            weights: weight of each term by name, in the order of the scores.
            advantages: advantage of each rollout.
            masked: the endings that are excluded from the loss.
        """
        thumbnails: dict[Part | Noise, bytes] = {}  # the rollouts of a group share pictures
        trajectories = []
        if self.scored is None:
            answers = [rollout.answer for rollout in parse_completions(self.completions)]
        else:
            answers = [rollout.answer for rollout in self.scored]
        for index, row in enumerate(self.rows):
            messages, pictures = without_pictures([*self.prompts[index], *self.completions[index]])
            for picture in pictures:
                if picture.recipe not in thumbnails:
                    thumbnails[picture.recipe] = thumbnail(picture)
            verdict = None if self.scored is None else self.scored[index].verdict
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
                    thumbnails=tuple(thumbnails[picture.recipe] for picture in pictures),
                    answer=answers[index],
                    ending=self.endings[index],
                    masked=self.endings[index] in masked,
                    boxes=() if self.scored is None else self.scored[index].crops,
                    scores=scores,
                    reward=sum(weights[name] * score for name, score in scores.items() if score is not None),
                    advantage=advantages[index],
                    verdict=None if verdict is None else verdict.said,
                    verdict_cost=None if verdict is None else verdict.cost,
                    **picture_fields(row, () if self.scored is None else self.scored[index].crop_images),
                )
            )
        return trajectories


def without_pictures(messages: Sequence[Message], first: int = 0) -> tuple[list[Message], list[LazyImage]]:
    """Replace each picture in messages by {"type": "image", "thumbnail": index}; return both.

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
        In the order of steps, groups and rollouts; empty for a directory without trajectories.

    Raises:
        FileNotFoundError: no such file or directory.
    """
    from pyarrow import parquet

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or directory")
    files = [path] if path.is_file() else _files(path / DIRECTORY) or _files(path)
    return [_trajectory(columns) for file in files for columns in parquet.read_table(file).to_pylist()]


def _trajectory(columns: dict[str, Any]) -> Trajectory:
    # In a file with both kinds of questions, these columns are null for a question about one picture.
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
