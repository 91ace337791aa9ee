"""verl's Parquet: `data_source, prompt, images, ability, reward_model, extra_info`, read and written.

DeepEyes and Chain-of-Focus publish the same columns. Columns that verl has no place for (several
accepted answers, options, targets, the id, the shown size, extra columns) are stored in `extra_info`, so rows
round-trip unchanged.
"""

import json
from pathlib import Path

from lfpc_trl.convert.drafts import Draft, Place
from lfpc_trl.convert.text import listed_texts, plain_answers, plain_question, question_with_choices
from lfpc_trl.data.columns import COLUMNS, IMAGE_TOKEN
from lfpc_trl.data.rows import Row, as_record
from lfpc_trl.data.sources import Record, short
from lfpc_trl.errors import DataError
from lfpc_trl.json_values import parse_json
from lfpc_trl.pictures.opening import opened
from lfpc_trl.rollouts.prompts import question_text

_GROUP = 16
"""Rows per row group; small, since each row holds its pictures."""


# --- reading -----------------------------------------------------------------------------------------


def from_verl(record: Record) -> Draft:
    """A draft from verl's columns; `extra_info` written by us restores everything."""
    extra = record.get("extra_info") or {}
    if not isinstance(extra, dict):
        raise DataError(f"extra_info must be an object, got {short(extra)}")
    if "lfpc" in extra:
        return _own(record, extra)
    reward = record.get("reward_model")
    if not isinstance(reward, dict) or reward.get("ground_truth") is None:
        raise DataError(f"reward_model must hold a ground_truth, got {short(reward)}")
    answer = plain_answers(reward["ground_truth"])
    picture = all_pictures(record.get("images"))
    question, choices = question_with_choices(_question(record, extra, count_of(picture)), answer)
    source, number = record.get("data_source"), extra.get("index", extra.get("id"))
    return Draft(
        question=question,
        answer=answer,
        choices=choices,
        picture=picture,
        extras={"x_source": source, "x_index": None if number is None else str(number)},
    )


def _own(record: Record, extra: Record) -> Draft:
    try:
        row = parse_json(extra["lfpc"])
        return Draft(
            question=row["question"],
            answer=row["answer"],
            picture=all_pictures(record.get("images")),
            id=row["id"],
            choices=row.get("choices"),
            regions=row.get("targets"),
            upright=True,
            shown_size=row.get("shown_sizes", row.get("shown_size")),
            target_images=row.get("target_images"),
            extras={name: row[name] for name in row if name not in COLUMNS},
        )
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"extra_info.lfpc must be a row in JSON, got {short(extra['lfpc'])} ({error})"
        ) from None


def _question(record: Record, extra: Record, pictures: int) -> str:
    """The bare question: `extra_info.question`, else the last user message without instructions."""
    if isinstance(extra.get("question"), str) and extra["question"].strip():
        return plain_question(extra["question"], pictures)
    prompt = record.get("prompt")
    users = [
        message.get("content")
        for message in (prompt if isinstance(prompt, list) else [])
        if isinstance(message, dict) and message.get("role") == "user"
    ]
    if not users:
        raise DataError(f"prompt must be messages with one of the user, got {short(prompt)}")
    return plain_question(users[-1], pictures)


def all_pictures(images: object) -> Place | list[Place]:
    """The pictures of a record, each as in `only_picture`; for a list of one, that picture itself.

    Raises:
        DataError: one of them is not a picture.
    """
    found = items_of(images)
    return [only_picture(image) for image in found] if len(found) > 1 else only_picture(images)


def items_of(images: object) -> list[object]:
    """The items of a list, also of one written as text as in VLMEvalKit's cells; else the argument."""
    if isinstance(images, str) and images.lstrip().startswith("["):
        listed = listed_texts(images)
        images = images if listed is None else listed
    return images if isinstance(images, list) else [images]


def count_of(picture: Place | list[Place]) -> int:
    """The number of pictures."""
    return 1 if isinstance(picture, Place) else len(picture)


def only_picture(images: object) -> Place:
    """The one picture of a record: bytes, `{bytes, path}`, `{image: path}`, a path, or a list of one of them.

    Raises:
        DataError: there is no picture, or more than one.
    """
    images = only_of_list(images)
    if isinstance(images, dict):
        data, path = images.get("bytes"), images.get("path") or images.get("image")
        images = data or path
    if isinstance(images, bytes) and images:
        return Place(data=images)
    if isinstance(images, str) and images:
        return Place(base64=images) if images.startswith("data:") else Place(path=images)
    raise DataError(f"a question must have a picture, got {short(images)}")


def only_of_list(images: object) -> object:
    """The item of a list of one, also one written as text as in VLMEvalKit's cells.

    Raises:
        DataError: an empty list, or several items; reading only the first picture would change the question.
    """
    found = items_of(images)
    if len(found) != 1:
        raise DataError(f"a question must have one picture, got {len(found)}")
    return found[0]


# --- writing -----------------------------------------------------------------------------------------


class VerlWriter:
    """Writes rows as verl's Parquet in small batches, with the pictures inside.

    Args:
        path: of the new file.
        source: verl's `data_source`, by which it chooses a reward.
    """

    def __init__(self, path: Path, source: str) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        text = pa.string()
        self._schema = pa.schema(
            {
                "data_source": text,
                "prompt": pa.list_(pa.struct({"role": text, "content": text})),
                "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": text})),
                "ability": text,
                "reward_model": pa.struct({"style": text, "ground_truth": text}),
                "extra_info": pa.struct(
                    {"split": text, "index": pa.int64(), "question": text, "answer": text, "lfpc": text}
                ),
            }
        )
        self._table = pa.Table
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._source = source
        self._group: list[Record] = []
        self._count = 0

    def write(self, row: Row) -> None:
        """Add a row."""
        question = question_text(row)
        images = []
        for picture in row.pictures:
            with opened(picture.image) as file:
                images.append({"bytes": file.read(), "path": picture.image.name})
        self._group.append(
            {
                "data_source": self._source,
                "prompt": [{"role": "user", "content": f"{IMAGE_TOKEN}\n" * len(images) + question}],
                "images": images,
                "ability": "vqa",
                "reward_model": {"style": "rule", "ground_truth": row.answer[0]},
                "extra_info": {
                    "split": "train",
                    "index": self._count,
                    "question": question,
                    "answer": row.answer[0],
                    "lfpc": json.dumps(as_record(row), ensure_ascii=False),
                },
            }
        )
        self._count += 1
        if len(self._group) == _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._group:
            self._writer.write_table(self._table.from_pylist(self._group, schema=self._schema))
            self._group.clear()

    def close(self) -> None:
        """Write the last batch and close the file."""
        self._flush()
        self._writer.close()
