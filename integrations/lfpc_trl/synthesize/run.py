"""Generate a synthetic data set: pictures and rows, determined by the seed for any number of processes."""

import contextlib
import functools
import json
import multiprocessing
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from lfpc_trl.errors import InterruptedRun, UserError
from lfpc_trl.files import publish, temporary_path, write_atomic
from lfpc_trl.jobs.journal import difference
from lfpc_trl.json_values import read_json
from lfpc_trl.pictures.opening import MAX_PIXELS
from lfpc_trl.pictures.sizes import Size, shown_size
from lfpc_trl.synthesize.backgrounds import draw_background
from lfpc_trl.synthesize.contents import Object
from lfpc_trl.synthesize.questions import KINDS, Kind, Question, ask, plan_signs
from lfpc_trl.synthesize.scene import Sign, draw_signs

FACTOR = 28
"""Side of a visual token in pixels, for the overview that defines the difficulty: Qwen2.5-VL's."""
MIN_HEIGHT = 10
"""Minimum height of a word in pixels of the original: smaller ones are hard to read. Our choice."""
_PER_FOLDER = 1000
_PART, _UNFINISHED = "rows.jsonl.part", ".unfinished.json"
"""Files of an unfinished run: the rows so far, and its settings."""


class Settings(NamedTuple):
    """Settings of a data set.

    Attributes:
        size: (width, height) of the pictures; None for the size of each background photograph.
        kinds: kinds of questions, used in turn.
        overview_tokens: visual tokens of the overview on which targets are measured.
        target_pixels: minimum and maximum height of the innermost target on that overview.
        quality: JPEG quality.
        seed: the seed; row i depends only on it and on i.
        backgrounds: background photographs; generated houses if empty.
        objects: contents of the signs; words if empty.
    """

    size: Size | None = (3840, 2160)
    kinds: tuple[Kind, ...] = KINDS
    overview_tokens: int = 256
    target_pixels: tuple[float, float] = (2.0, 6.0)
    quality: int = 90
    seed: int = 0
    backgrounds: tuple[Path, ...] = ()
    objects: tuple[Object, ...] = ()


class Scene(NamedTuple):
    """A picture, its signs, and a question about some of them."""

    picture: Image.Image
    signs: list[Sign]
    question: Question


def overview_scale(size: Size, settings: Settings) -> float:
    """Return the pixels of a picture per pixel of its overview."""
    return size[1] / shown_size(size, settings.overview_tokens, factor=FACTOR)[1]


def readable(size: Size, settings: Settings) -> bool:
    """Whether the smallest targets are readable on the full picture."""
    return settings.target_pixels[0] * overview_scale(size, settings) >= MIN_HEIGHT


def make_scene(settings: Settings, index: int) -> Scene:
    """Draw scene number `index`, from 0.

    Raises:
        UserError: the signs do not fit, or would be too small to read.
    """
    rng = np.random.default_rng((settings.seed, index))
    kind = settings.kinds[index % len(settings.kinds)]
    picture = draw_background(rng, settings.backgrounds, settings.size)
    scale = overview_scale(picture.size, settings)
    least, most = settings.target_pixels
    if not readable(picture.size, settings):
        raise UserError(
            f"targets must be at least {MIN_HEIGHT} pixels high, got {least * scale:.1f} on a picture of "
            f"{picture.width} x {picture.height}: use larger --target-pixels or larger pictures"
        )
    plans = plan_signs(rng, kind, settings.objects, lambda: round(float(rng.uniform(least, most)) * scale))
    signs = draw_signs(rng, picture, plans)
    names = sorted({each.name for each in settings.objects})
    return Scene(picture, signs, ask(rng, kind, signs, names))


def make_row(folder: Path, settings: Settings, index: int) -> dict[str, Any]:
    """Draw picture number `index`, write it to `folder` and return its row."""
    picture, _, question = make_scene(settings, index)
    image = Path("images") / f"{index // _PER_FOLDER:03d}" / f"{index:06d}.jpg"
    (folder / image).parent.mkdir(parents=True, exist_ok=True)
    picture.save(folder / image, quality=settings.quality, subsampling=0)
    height = min(sign.boxes[0][3] - sign.boxes[0][1] for sign in question.asked)
    row: dict[str, Any] = {
        "id": f"{settings.seed}-{index:06d}",
        "question": question.text,
        "answer": question.answer,
        "image": image.as_posix(),
        "targets": [[list(box) for box in sign.boxes] for sign in question.asked],
        "x_kind": settings.kinds[index % len(settings.kinds)],
        "x_target_pixels": round(height / overview_scale(picture.size, settings), 2),
    }
    if question.choices is not None:
        row["choices"] = question.choices
    return row


def synthesize(
    output: Path,
    rows: int,
    settings: Settings,
    *,
    workers: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> Path:
    """Generate a data set.

    Args:
        output: a new or empty folder, for `rows.jsonl` and `images/`; or a folder with an interrupted run of
            the same settings, which is resumed.
        rows: number of pictures, each with one question.
        settings: all other settings that determine the rows.
        workers: number of processes; does not affect the rows.
        progress: called with the number of rows written.

    Returns:
        The path of the rows.

    Raises:
        UserError: a setting is invalid, or the signs do not fit.
    """
    _check(rows, settings, workers)
    about = {"rows": rows, **json.loads(json.dumps(settings._asdict(), default=str))}
    _check_output(output, about)
    output.mkdir(parents=True, exist_ok=True)
    part, path = output / _PART, output / "rows.jsonl"
    count = _whole_lines(part) if (output / _UNFINISHED).is_file() else 0
    write_atomic(output / _UNFINISHED, json.dumps(about) + "\n")
    try:
        with (
            contextlib.closing(_make_rows(output, range(count, rows), settings, workers)) as new_rows,
            part.open("a" if count else "w", encoding="utf-8") as file,
        ):
            for row in new_rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                count += 1
                progress(count)
    except KeyboardInterrupt:
        raise InterruptedRun(
            f"the first {count} rows are in {part}; rerun the same command to resume"
        ) from None
    publish(part, path)
    (output / _UNFINISHED).unlink()
    return path


def _whole_lines(part: Path) -> int:
    """Count the rows of an interrupted run, after removing an incomplete last line."""
    if not part.is_file():
        return 0
    data = part.read_bytes()
    whole = data.rfind(b"\n") + 1
    os.truncate(part, whole)
    return data[:whole].count(b"\n")


def _check_output(output: Path, about: dict[str, Any]) -> None:
    """Refuse a folder that contains anything except an interrupted run with these settings."""
    if not output.exists():
        return
    names = {path.name for path in output.iterdir()} if output.is_dir() else {""}
    if not names <= {_PART, _UNFINISHED, temporary_path(output / _UNFINISHED).name, "images"}:
        raise UserError(f"{output}: not a new or empty folder")
    if names and not names & {_PART, _UNFINISHED, temporary_path(output / _UNFINISHED).name}:
        raise UserError(f"{output}: not a new or empty folder")
    if _UNFINISHED in names:
        try:
            before = read_json(output / _UNFINISHED)
        except ValueError as error:
            raise UserError(f"{output / _UNFINISHED}: not readable ({error})") from None
        changed = difference(before, about)
        if changed is not None:
            raise UserError(f"{output}: holds an unfinished data set with other settings, {changed}")


def _make_rows(
    output: Path, numbers: range, settings: Settings, workers: int
) -> Generator[dict[str, Any], None, None]:
    make = functools.partial(make_row, output, settings)
    if workers == 1:
        yield from map(make, numbers)
        return
    # Spawn, not fork: a forked process inherits locks that other threads of this process hold.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(make, numbers, chunksize=4)


def _check(rows: int, settings: Settings, workers: int) -> None:
    least, most = settings.target_pixels
    rules = [
        (rows >= 1, f"--rows must be at least 1, got {rows}"),
        (workers >= 1, f"--workers must be at least 1, got {workers}"),
        (1 <= settings.quality <= 100, f"--quality must be 1 to 100, got {settings.quality}"),
        (
            settings.overview_tokens >= 1,
            f"--overview-tokens must be at least 1, got {settings.overview_tokens}",
        ),
        (0 < least <= most, f"--target-pixels must be two heights above 0, got {least:g}-{most:g}"),
        (settings.seed >= 0, f"--seed must be at least 0, got {settings.seed}"),
        (settings.size or settings.backgrounds, "--size as-background needs --backgrounds"),
    ]
    for kept, message in rules:
        if not kept:
            raise UserError(message)
    if (
        settings.size is not None
        and not 256 <= min(settings.size) <= settings.size[0] * settings.size[1] <= MAX_PIXELS
    ):
        width, height = settings.size
        raise UserError(
            f"--size must be at least 256 x 256 and at most {MAX_PIXELS} pixels, got {width}x{height}"
        )
