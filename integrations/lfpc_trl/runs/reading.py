"""Reading the trajectories of a run or a file, fast enough for a hundred thousand of them.

The columns that lists and filters need are held in memory. Conversations and pictures are read in small
batches, when a trajectory is opened. The columns are those of `docs/reference/trajectories.md`; only
`row_id`, `question` and `messages` are required.
"""

import contextlib
import dataclasses
import json
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import parquet

from lfpc_rewards import coverage_matrix, grounding_parts, iou_matrix
from lfpc_trl.errors import DataError, UserError, one_line
from lfpc_trl.json_values import parse_json
from lfpc_trl.pictures.crops import PixelBox
from lfpc_trl.rollouts.turns import parts_of
from lfpc_trl.runs.directory import read_metrics
from lfpc_trl.runs.trajectories import SEVERAL

NEEDED = ("row_id", "question", "messages")
LIGHT = (
    *("step", "rollout", "row_id", "question", "answer", "ending", "boxes", "targets", "image_size"),
    *("scores", "reward", "condition", *SEVERAL),
)
"""Columns that lists and filters need."""
BATCH = 32
"""Trajectories read at a time from a file: users look at the rollouts of a group together."""


@dataclass(frozen=True)
class Filter:
    """Which trajectories are listed. A field at its default filters nothing.

    Attributes:
        outcome: by the score `accuracy`.
        crop: whether there was a delivered crop.
        overlap_below: the best crop covers less than this share of the innermost target.
        step: training step.
        ending: how the rollout ended.
        condition: condition of an evaluation; also limits the comparison with another run to it.
        text: text in the question, the answer or the row's id, ignoring case.
        against: whether the row's mean accuracy is above or below that of the other run.
        order: "file", or ascending by a column.
    """

    outcome: Literal["", "right", "wrong"] = ""
    crop: Literal["", "yes", "no"] = ""
    overlap_below: float = math.inf
    step: int | None = None
    ending: str = ""
    condition: str = ""
    text: str = ""
    against: Literal["", "better", "worse"] = ""
    order: Literal["file", "reward", "overlap"] = "file"


@dataclass(frozen=True)
class _Index:
    """Columns over all trajectories, in file order."""

    file: NDArray[np.int32]
    place: NDArray[np.int64]
    step: NDArray[np.int64]
    rollout: NDArray[np.int64]
    crops: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    overlap: NDArray[np.float64]
    reward: NDArray[np.float64]
    row_id: pa.Array
    question: pa.Array
    answer: pa.Array
    ending: pa.Array
    condition: pa.Array

    def __len__(self) -> int:
        return len(self.place)


class Run:
    """One run directory, directory of Parquet files, or Parquet file.

    Attributes:
        path: as given.
        files: the Parquet files, sorted by name.
        index: the columns for lists and filters.
        rows: positions of the trajectories of each row.
        generation: increases whenever a refresh finds changed files.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.generation = 0
        self._lock = threading.Lock()
        self._state: list[tuple[str, int, int]] = []
        self._batches: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self.files: list[Path] = []
        self.index = _concatenate([])
        self.rows: dict[str, list[int]] = {}
        self.metrics = read_metrics(path)
        if not parts(path) and not self.metrics:
            raise UserError(f"{path}: holds neither trajectories (.parquet) nor metrics.jsonl")
        self.refresh()

    def refresh(self) -> None:
        """Read what has changed on disk.

        Raises:
            DataError: a file is not a Parquet file, or has missing or wrong columns.
        """
        with self._lock:
            self.metrics = read_metrics(self.path)
            files = parts(self.path)
            try:
                state = [(file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files]
            except FileNotFoundError:
                return  # a resumed run is removing steps; the next refresh sees the result
            if state == self._state and self.generation:
                return
            kept = len(self._state) if state[: len(self._state)] == self._state else 0
            fresh = [_read_index(file, number) for number, file in enumerate(files) if number >= kept]
            self.index = _concatenate([self.index, *fresh] if kept else fresh)
            rows: dict[str, list[int]] = defaultdict(list)
            for position, row_id in enumerate(self.index.row_id.to_pylist()):
                rows[row_id].append(position)
            self.files, self._state, self.rows = files, state, dict(rows)
            self._batches.clear()
            self.generation += 1

    def __len__(self) -> int:
        return len(self.index)

    def facts(self) -> dict[str, Any]:
        """The choices of the filters."""
        return {
            "name": self.path.name or str(self.path),
            "count": len(self),
            "generation": self.generation,
            "steps": sorted(set(self.index.step[self.index.step >= 0].tolist())),
            "endings": sorted(filter(None, pc.unique(self.index.ending).to_pylist())),
            "conditions": list(filter(None, pc.unique(self.index.condition).to_pylist())),
            "has_targets": bool((~np.isnan(self.index.overlap)).any()),
        }

    def mean_accuracy(self, condition: str = "") -> dict[str, float]:
        """Mean accuracy per row, over rollouts whose accuracy is not NaN; optionally of one condition."""
        accuracy, means = self.index.accuracy, {}
        if condition:
            accuracy = np.where(_mask(pc.equal(self.index.condition, condition)), accuracy, math.nan)
        for row_id, positions in self.rows.items():
            values = accuracy[positions]
            values = values[~np.isnan(values)]
            if len(values):
                means[row_id] = float(values.mean())
        return means

    def select(self, criteria: Filter, other: "Run | None" = None) -> NDArray[np.int64]:
        """The positions that pass a filter, in its order."""
        index = self.index
        keep = np.ones(len(index), dtype=bool)
        if criteria.outcome:
            keep &= index.accuracy >= 0.5 if criteria.outcome == "right" else index.accuracy < 0.5
        if criteria.crop:
            keep &= (index.crops > 0) == (criteria.crop == "yes")
        if criteria.overlap_below < math.inf:
            keep &= index.overlap < criteria.overlap_below
        if criteria.step is not None:
            keep &= index.step == criteria.step
        if criteria.ending:
            keep &= _mask(pc.equal(index.ending, criteria.ending))
        if criteria.condition:
            keep &= _mask(pc.equal(index.condition, criteria.condition))
        if criteria.text:
            matches = [
                _mask(pc.match_substring(column, criteria.text, ignore_case=True))
                for column in (index.question, index.answer, index.row_id)
            ]
            keep &= np.logical_or.reduce(matches)
        if criteria.against and other is not None:
            keep &= self._compared(criteria, other)
        positions = np.flatnonzero(keep)
        if criteria.order != "file":
            values = index.reward if criteria.order == "reward" else index.overlap
            positions = positions[np.argsort(values[positions], kind="stable")]  # NaN comes last
        return positions

    def _compared(self, criteria: Filter, other: "Run") -> NDArray[np.bool_]:
        means, others = self.mean_accuracy(criteria.condition), other.mean_accuracy(criteria.condition)
        sign = 1 if criteria.against == "better" else -1
        rows = {row for row, mean in means.items() if row in others and sign * (mean - others[row]) > 0}
        return np.array([row in rows for row in self.index.row_id.to_pylist()], dtype=bool)

    def summary(self, position: int) -> dict[str, Any]:
        """The fields of one trajectory that the list shows."""
        index = self.index
        return {
            "position": position,
            "row_id": index.row_id[position].as_py(),
            "question": index.question[position].as_py(),
            "answer": index.answer[position].as_py(),
            "step": int(index.step[position]) if index.step[position] >= 0 else None,
            "rollout": int(index.rollout[position]),
            "condition": index.condition[position].as_py() or None,
            "crops": int(index.crops[position]),
            "accuracy": _number(index.accuracy[position]),
            "overlap": _number(index.overlap[position]),
            "reward": _number(index.reward[position]),
        }

    def match(self, row_id: str, step: int | None, condition: str = "") -> int | None:
        """The first trajectory of a row at the nearest step, preferably of this condition; None if none."""
        positions = self.rows.get(row_id)
        if not positions:
            return None

        def distance(position: int) -> tuple[bool, int]:
            differs = self.index.condition[position].as_py() != condition
            return differs, abs(int(self.index.step[position]) - (step or 0))

        return min(positions, key=distance)

    def siblings(self, position: int) -> list[dict[str, Any]]:
        """The rollouts of the same row in the same step, this one included."""
        step = self.index.step[position]
        row_id = self.index.row_id[position].as_py()
        return [self.summary(each) for each in self.rows[row_id] if self.index.step[each] == step]

    def steps_of(self, position: int) -> list[tuple[int, int]]:
        """Each step in which the row was sampled, with its first trajectory there."""
        first: dict[int, int] = {}
        for each in self.rows[self.index.row_id[position].as_py()]:
            first.setdefault(int(self.index.step[each]), each)
        return sorted(first.items())

    def columns(self, position: int) -> dict[str, Any]:
        """Every column of one trajectory, thumbnails included.

        Raises:
            DataError: its file is missing or damaged.
        """
        number, place = int(self.index.file[position]), int(self.index.place[position])
        key = (number, place // BATCH)
        with self._lock:
            batch = self._batches.get(key)
            if batch is None:
                with _named(self.files[number]):
                    batch = _read_batch(self.files[number], place // BATCH)
                while len(self._batches) >= 16:
                    del self._batches[next(iter(self._batches))]
                self._batches[key] = batch
        return batch[place % BATCH]


def parts(path: Path) -> list[Path]:
    """The Parquet files of a run directory or of any directory, or the file itself."""
    if path.is_file():
        return [path]
    inside = path / "trajectories"
    return sorted((inside if inside.is_dir() else path).glob("*.parquet"))


def crops_by_row(path: Path, limit: int = 6) -> dict[str, list[tuple[int, PixelBox]]]:
    """The distinct delivered crops of each row over all its rollouts, by descending reward.

    A crop is the number of its picture, from 1, and its box.

    Args:
        path: a file of trajectories, or a run.
        limit: most crops of a picture.

    Raises:
        UserError: there are no trajectories.
    """
    if not parts(path):
        raise UserError(f"{path}: holds no trajectories (.parquet)")
    found: dict[str, dict[tuple[int, PixelBox], float]] = defaultdict(dict)
    for file in parts(path):
        table = _read(file, ("row_id", "boxes", "reward", "box_images"))
        _check_lengths(file, "boxes", _column(table, "boxes"))
        for record in table.to_pylist():
            reward = record.get("reward")
            boxes = record.get("boxes") or ()
            for box, image in zip(boxes, record.get("box_images") or (1,) * len(boxes), strict=False):
                if not all(map(math.isfinite, box)):
                    continue
                key = int(image), (int(box[0]), int(box[1]), int(box[2]), int(box[3]))
                value = -math.inf if reward is None or math.isnan(reward) else float(reward)
                before = found[record["row_id"]].get(key, -math.inf)
                found[record["row_id"]][key] = max(value, before)
    return {row: _best_of_each_picture(crops, limit) for row, crops in found.items()}


def _best_of_each_picture(
    rewards: Mapping[tuple[int, PixelBox], float], limit: int
) -> list[tuple[int, PixelBox]]:
    places: Counter[int] = Counter()
    best = []
    for crop in sorted(rewards, key=lambda crop: rewards[crop], reverse=True):
        places[crop[0]] += 1
        best += [crop] if places[crop[0]] <= limit else []
    return best


class Pictures(NamedTuple):
    """The pictures of a trajectory's question, and which crops and targets belong to which.

    Attributes:
        images: paths of the originals.
        sizes: [width, height] of each; None if the file does not have it.
        box_images: the picture number of each crop, from 1.
        target_images: the picture number of each region, from 1.
    """

    images: list[str]
    sizes: list[Any]
    box_images: list[int]
    target_images: list[int]


def pictures_of(columns: dict[str, Any]) -> Pictures:
    """The pictures of a trajectory, from its columns."""
    return Pictures(
        columns.get("images") or [columns.get("image") or ""],
        columns.get("image_sizes") or [columns.get("image_size")],
        columns.get("box_images") or [1] * len(columns.get("boxes") or ()),
        columns.get("target_images") or [1] * len(columns.get("targets") or ()),
    )


def crop_scores(columns: dict[str, Any]) -> list[dict[str, float | None]]:
    """For each delivered crop, its best overlap with an innermost target and its best IoU with any target.

    Only targets on the crop's picture count.
    """
    boxes, numbers = columns.get("boxes") or [], pictures_of(columns)
    targets = [
        (region, image)
        for region, image in zip(columns.get("targets") or (), numbers.target_images, strict=True)
        if region
    ]
    if not boxes or not targets:
        return [{"overlap": None, "iou": None} for _ in boxes]
    inner = np.array([region[0] for region, _ in targets], dtype=float)
    every = np.array([box for region, _ in targets for box in region], dtype=float)
    inner_images = np.array([image for _, image in targets])
    every_images = np.array([image for region, image in targets for _ in region])
    crop_images = np.array(numbers.box_images)[:, None]
    # An invalid box covers nothing, as in the rewards.
    crops = np.array([box if _is_box(box) else [0.0] * 4 for box in boxes], dtype=float)
    overlaps = (coverage_matrix(crops, inner) * (crop_images == inner_images)).max(axis=1)
    ious = (iou_matrix(crops, every) * (crop_images == every_images)).max(axis=1)
    return [{"overlap": _number(o), "iou": _number(i)} for o, i in zip(overlaps, ious, strict=True)]


def _is_box(box: Sequence[float]) -> bool:
    x1, y1, x2, y2 = box
    return all(map(math.isfinite, box)) and x1 <= x2 and y1 <= y2


def conversation(text: str) -> list[dict[str, Any]]:
    """Parse a conversation for display: a list of role and parts, whatever the file holds."""
    try:
        messages = parse_json(text)
    except (ValueError, TypeError):
        messages = text
    if not isinstance(messages, list):
        messages = [{"role": "unreadable", "content": str(text)}]
    return [_message(each) for each in messages]


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {"role": "unreadable", "parts": [{"text": str(message)}]}
    content = message.get("content")
    if isinstance(content, str) and message.get("role") == "assistant":
        parts = [{"call" if is_call else "text": piece} for piece, is_call in parts_of(content)]
    else:
        blocks = content if isinstance(content, list) else [content]
        parts = [_part(block) for block in blocks if block is not None and block != ""]
    parts += [{"call": json.dumps(call, ensure_ascii=False)} for call in _calls(message)]
    return {"role": str(message.get("role", "")), "parts": parts}


def _part(block: Any) -> dict[str, Any]:
    if isinstance(block, str):
        return {"text": block}
    if isinstance(block, dict):
        if block.get("type") == "image" and type(block.get("thumbnail")) is int:
            return {"thumbnail": cast("int", block["thumbnail"])}
        if isinstance(block.get("text"), str):
            return {"text": block["text"]}
    return {"text": json.dumps(block, ensure_ascii=False)}


def _calls(message: dict[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return []
    return [call.get("function", call) if isinstance(call, dict) else call for call in calls]


# --- files -------------------------------------------------------------------------------------------


def _read(file: Path, columns: Sequence[str]) -> pa.Table:
    with _named(file):
        schema = parquet.read_schema(file)
        names = schema.names
        missing = [name for name in NEEDED if name not in names]
        if missing:
            raise DataError(f"{file}: not a trajectory file, has no column {missing[0]}")
        for name, (is_kind, description) in _KINDS.items():
            kind = schema.field(name).type if name in names and names.count(name) == 1 else pa.null()
            if not (pa.types.is_null(kind) or is_kind(kind)):
                raise DataError(f"{file}: column {name} must hold {description}, got {str(kind)[:80]}")
        return parquet.read_table(file, columns=[name for name in columns if name in names])


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    """Turn Arrow's errors about a bad file into one line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: not a readable Parquet file ({one_line(error)})") from None


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _list_of(is_part: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    def is_list(kind: pa.DataType) -> bool:
        types = pa.types
        if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
            return False
        return types.is_null(kind.value_type) or is_part(kind.value_type)

    return is_list


def _is_scores(kind: pa.DataType) -> bool:
    return pa.types.is_map(kind) and _is_text(kind.key_type) and _is_number(kind.item_type)


_KINDS = {
    **dict.fromkeys(("step", "rollout"), (pa.types.is_integer, "whole numbers")),
    **dict.fromkeys(
        ("row_id", "question", "messages", "image", "answer", "ending", "condition"), (_is_text, "texts")
    ),
    **dict.fromkeys(("choices", "accepted"), (_list_of(_is_text), "lists of texts")),
    "masked": (pa.types.is_boolean, "true or false"),
    "boxes": (_list_of(_list_of(_is_number)), "lists of boxes"),
    "targets": (_list_of(_list_of(_list_of(_is_number))), "lists of lists of boxes"),
    "image_size": (_list_of(pa.types.is_integer), "pairs of whole numbers"),
    "images": (_list_of(_is_text), "lists of texts"),
    "image_sizes": (_list_of(_list_of(pa.types.is_integer)), "lists of pairs of whole numbers"),
    **dict.fromkeys(
        ("box_images", "target_images"), (_list_of(pa.types.is_integer), "lists of whole numbers")
    ),
    "thumbnails": (
        _list_of(lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)),
        "files",
    ),
    "scores": (_is_scores, "a number per name"),
    "reward": (_is_number, "numbers"),
    "advantage": (_is_number, "numbers"),
}
"""The type of each column, as a check of Arrow's type and in words; a column of only nulls fits all."""
_LENGTHS = {"boxes": (1, 4), "targets": (2, 4), "image_size": (0, 2), "image_sizes": (1, 2)}
"""For columns of number lists: their nesting depth, and how many numbers each holds."""


def _check_lengths(file: Path, name: str, values: Sequence[Any] | None) -> None:
    depth, length = _LENGTHS[name]
    for value in values or ():
        inner = [value]
        for _ in range(depth):
            inner = [each for outer in inner for each in outer or ()]
        for each in inner:
            if (each is not None or depth) and (len(each or ()) != length or None in each):
                raise DataError(f"{file}: {name} must hold lists of {length} numbers, got {str(each)[:80]}")


def _read_index(file: Path, number: int) -> _Index:
    table = _read(file, LIGHT)
    count = table.num_rows
    for name in _LENGTHS:
        _check_lengths(file, name, _column(table, name))
    boxes = _column(table, "boxes") or [[]] * count
    scores = [dict(each or ()) for each in _column(table, "scores") or [()] * count]
    return _Index(
        file=np.full(count, number, dtype=np.int32),
        place=np.arange(count),
        step=_integers(_column(table, "step"), count, absent=-1),
        rollout=_integers(_column(table, "rollout"), count, absent=0),
        crops=np.array([len(each or ()) for each in boxes], dtype=np.int64),
        accuracy=np.array([_float(each.get("accuracy")) for each in scores], dtype=np.float64),
        overlap=_overlap(file, boxes, table),
        reward=np.array(
            [_float(each) for each in _column(table, "reward") or [None] * count], dtype=np.float64
        ),
        row_id=_texts(table, "row_id"),
        question=_texts(table, "question"),
        answer=_texts(table, "answer"),
        ending=_texts(table, "ending"),
        condition=_texts(table, "condition"),
    )


def _overlap(file: Path, boxes: list[Any], table: pa.Table) -> NDArray[np.float64]:
    """The overlap of the crop that the grounding reward uses; NaN without targets, 0 without a crop."""
    targets, sizes = _column(table, "targets"), _column(table, "image_size")
    if targets is None or sizes is None or not boxes:
        return np.full(len(boxes), math.nan)
    box_images, target_images = None, None
    if set(SEVERAL) <= set(table.column_names):
        all_sizes, box_images, target_images = (
            [each or None for each in _column(table, name) or ()] for name in SEVERAL[1:]
        )
        sizes = [of_several or of_one for of_several, of_one in zip(all_sizes, sizes, strict=True)]
    try:
        return grounding_parts(
            boxes, targets, sizes, crop_images=box_images, target_images=target_images
        ).overlap
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: {one_line(error)}") from None


def _column(table: pa.Table, name: str) -> list[Any] | None:
    return table[name].to_pylist() if name in table.column_names else None


def _texts(table: pa.Table, name: str) -> pa.Array:
    values = _column(table, name) or [None] * table.num_rows
    return pa.array(["" if value is None else str(value) for value in values], pa.string())


def _integers(values: list[Any] | None, count: int, *, absent: int) -> NDArray[np.int64]:
    return np.array([absent if each is None else each for each in values or [None] * count], dtype=np.int64)


def _float(value: Any) -> float:
    return math.nan if value is None else float(value)


def _number(value: Any) -> float | None:
    """None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def _mask(flags: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(flags.to_numpy(zero_copy_only=False), dtype=bool)


def _concatenate(indices: list[_Index]) -> _Index:
    """Concatenate indices."""
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(_Index):
        columns = [getattr(index, field.name) for index in indices]
        if field.type is pa.Array:
            joined[field.name] = pa.concat_arrays(columns) if columns else pa.array([], pa.string())
        else:
            joined[field.name] = np.concatenate(columns) if columns else np.empty(0)
    return _Index(**joined)


def _read_batch(file: Path, number: int) -> list[dict[str, Any]]:
    """Read `BATCH` trajectories of a file with all columns, from only the row groups that hold them."""
    source = parquet.ParquetFile(file)
    first, before, skip = number * BATCH, 0, 0
    groups: list[int] = []
    for group in range(source.num_row_groups):
        count = source.metadata.row_group(group).num_rows
        if before + count > first and before < first + BATCH:
            if not groups:
                skip = first - before
            groups.append(group)
        before += count
    records: list[dict[str, Any]] = []
    for batch in source.iter_batches(batch_size=BATCH, row_groups=groups):
        if skip < batch.num_rows:
            records += batch.slice(skip).to_pylist()
        skip = max(0, skip - batch.num_rows)
        if len(records) >= BATCH:
            break
    return records[:BATCH]
