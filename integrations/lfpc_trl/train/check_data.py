"""Checks that every row of a data file can earn the full reward.

A well-formed row can still be unsolvable: its answer may fail the comparison, or no crop may hit its target.
So for every good row a reference rollout is built from its own answers and targets: the real crop tool cuts
the targets, and the training's scoring reads the transcript. A cue of LOCUS is answered with its own box.
"""

import contextlib
import functools
import hashlib
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lfpc_rewards import Frame, answers_match, convert_frame, grounding_parts
from lfpc_trl.data.boxes import Sample
from lfpc_trl.data.choices import split_choices
from lfpc_trl.data.columns import IMAGE_TOKEN, Columns
from lfpc_trl.data.frames import frame_warning
from lfpc_trl.data.rows import Boxes, Picture, Problem, Row, scan_rows, with_shown_tokens
from lfpc_trl.errors import DataError
from lfpc_trl.locus.cues import check_cue, cue_box
from lfpc_trl.locus.task import CuePrompt, score_cues
from lfpc_trl.pictures.crops import BoxError
from lfpc_trl.pictures.lazy import file_bytes
from lfpc_trl.pictures.opening import opened
from lfpc_trl.pictures.originals import read_header
from lfpc_trl.pictures.sizes import Size, tokens_of
from lfpc_trl.rollouts.crop_tool import CropSettings, cut_box, environment_for
from lfpc_trl.rollouts.prompts import Message
from lfpc_trl.rollouts.transcript import GroundingSettings, ScoredRollout, score_transcripts
from lfpc_trl.threads import in_threads
from lfpc_trl.train.preflight import (
    SAMPLE,
    PreflightReport,
    answer_turn,
    crop_turns,
    image_argument,
    native_size,
    preflight,
    unreadable,
    whole_picture,
)

CEILING = 0.75
"""A perfect crop that earns less than this gets a warning: its IoU is about one half. Our choice."""
_IMBALANCE, _ENOUGH_ROWS = 0.1, 50
"""A letter that beats guessing by this share, over at least this many rows, gets a warning. Our choice."""


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    Attributes:
        rows: number of rows in the file, good and bad.
        bad_rows: number of rows with a problem.
        problems: every rule broken by a row or a setting; rows in file order.
        warnings: what does not stop a training run, by kind.
        statistics: statistics of the good rows, as plain numbers that fit into JSON.
        preflight: report of the checks with the model's processor; None without a model.
    """

    rows: int
    bad_rows: int
    problems: list[Problem]
    warnings: dict[str, list[Problem]]
    statistics: dict[str, Any]
    preflight: PreflightReport | None


def check_data(
    path: str | Path,
    *,
    columns: Columns | None = None,
    method: Literal["lfpc", "locus"] = "lfpc",
    stage: int = 1,
    processor: Any = None,
    crops: CropSettings | None = None,
    grounding: GroundingSettings | None = None,
    shown_tokens: int | None = None,
    trajectory_tokens: int | None = None,
    context: int | None = None,
    sample: int | None = SAMPLE,
    progress: Callable[[int], object] | None = None,
) -> DataReport:
    """Check all rows, each with a reference rollout, and collect all problems.

    Args:
        path: a file or a folder, as for `read_rows`.
        columns: as for `read_rows`.
        method: "locus" for a file of cues.
        stage: 2 rejects rows without targets.
        processor: from `processors.load_processor`, for `preflight`; None skips the model's checks.
        crops: how crops are cut. By default boxes are in pixels of the original, so that only rounding and
            the minimum side limit the reward of a crop.
        grounding: how crops are compared with targets.
        shown_tokens: show every picture at this many visual tokens, overriding its `shown_size`.
        trajectory_tokens: as for `preflight`.
        context: as for `preflight`.
        sample: as for `preflight`. The reference rollouts decode every picture anyway.
        progress: called with the number of rows checked since the last call.

    Raises:
        DataError: the file cannot be read at all, or holds no rows.
    """
    crops = crops or CropSettings(frame=Frame.ORIGINAL, factor=28)
    grounding = grounding or GroundingSettings()
    samples: list[Sample] = []
    rows, problems = scan_rows(path, require_targets=stage == 2, columns=columns, samples=samples)
    frame = frame_warning(path, samples, columns=columns)
    total = len(rows) + len({problem.place for problem in problems})
    if shown_tokens is not None:
        rows = with_shown_tokens(rows, shown_tokens, factor=crops.factor)
    check: Callable[[Row], _Checked] = functools.partial(_check_row, crops=crops, grounding=grounding)
    cues, question_key = None, _question
    if method == "locus":
        rows, not_cues = _cues(rows)
        problems += not_cues
        check, question_key = functools.partial(_check_cue, frame=crops.frame), cue_box
        cues = CuePrompt(crops.frame, crops.factor, crops.crop_tokens)
    # Pictures without a shown size are shown at their own.
    shown = (row.shown_at([each.shown_size or each.size for each in row.pictures]) for row in rows)
    earned: list[float] = []
    ceilings: list[Problem] = []
    for _, checked in in_threads(check, shown):  # most of the work is decoding, which releases the GIL
        earned.append(checked.earned)
        problems += checked.problems
        ceilings += [] if checked.warning is None else [checked.warning]
        if progress is not None:
            progress(1)
    report = None
    if processor is not None and rows:
        report = preflight(
            processor,
            rows,
            crops,
            trajectory_tokens=trajectory_tokens,
            context=context,
            cues=cues,
            sample=sample,
        )
        known = set(problems)
        problems += [problem for problem in report.problems if problem not in known]
    warnings = {
        "boxes that may not be pixels": [] if frame is None else [frame],
        "perfect crops that earn little": ceilings,
        "asked twice": _duplicates(rows, question_key),
        "the question holds its answer": _leaks(rows),
        "the question holds the options": _options_in_questions(rows),
        "a mark for the picture": _picture_marks(rows),
        "options begin with their letters": _lettered_choices(rows),
        "equal choices": _equal_choices(rows),
        "one letter too often": _letter_bias(Path(path), rows),
        "budget": [] if report is None else report.warnings,
    }
    problems.sort(key=lambda problem: _in_order(problem.place))
    return DataReport(
        rows=total,
        bad_rows=len({problem.place for problem in problems if _row_number(problem.place)}),
        problems=problems,
        warnings={kind: found for kind, found in warnings.items() if found},
        statistics=_statistics(rows, earned, crops),
        preflight=report,
    )


def _in_order(place: str) -> tuple[str, int]:
    """Sort key: settings first, then by file and row."""
    number = _row_number(place)
    return (place.rpartition(" row ")[0] if number else "", number)


def _row_number(place: str) -> int:
    """The row number in "FILE row N"; 0 if the place is a setting."""
    number = place.rpartition(" row ")[2]
    return int(number) if number.isdigit() else 0


# --- reference rollouts ------------------------------------------------------------------------------


class _Checked(NamedTuple):
    """The result of a row's reference rollouts.

    Attributes:
        earned: grounding reward of its crops, or IoU of a cue's box; NaN if it has no targets.
        problems: rules that the row breaks.
        warning: set if even the best boxes earn little.
    """

    earned: float
    problems: list[Problem]
    warning: Problem | None = None


def _check_row(row: Row, crops: CropSettings, grounding: GroundingSettings) -> _Checked:
    turns = _reference_turns(row, crops, grounding)
    if isinstance(turns, Problem):
        return _Checked(math.nan, [turns])
    completions = [[*turns, answer_turn(answer)] for answer in row.answer]
    scores = score_transcripts(completions, [row] * len(completions), crops, grounding)
    rules = [
        _broken_rule(row, answer, score, crops) for answer, score in zip(row.answer, scores, strict=True)
    ]
    problems = [Problem(row.name, rule) for rule in rules if rule]
    return _Checked(scores[0].grounding, problems, _ceiling(row, scores[0], crops.frame))


def _reference_turns(row: Row, crops: CropSettings, grounding: GroundingSettings) -> list[Message] | Problem:
    """Turns in which the real tool cuts the row's targets, one crop per region."""
    problem = unreadable(row)
    if problem is not None:
        return problem
    environment = environment_for(row, crops)
    environment.reset(row=row)
    turns: list[Message] = []
    try:
        boxes = [
            (target.image, best_box(row.pictures[target.image - 1], target.boxes, crops, grounding))
            for target in row.targets
        ]
        for number, box in boxes[: crops.max_crops] or [(1, whole_picture(row.pictures[0], crops.frame))]:
            which = image_argument(row, number)
            reply = environment.image_zoom_in_tool(box, **which)
            # Scoring only checks that a picture came back; keeping all pictures would not fit in memory.
            turns += crop_turns(box, [{"type": block["type"]} for block in reply], **which)
    except BoxError as error:
        return Problem(row.name, f"the crop tool must be able to cut its targets, got: {error}")
    return turns


def _cues(rows: Sequence[Row]) -> tuple[list[Row], list[Problem]]:
    """The rows that are cues, and the problems of the others."""
    cues, problems = [], []
    for row in rows:
        try:
            check_cue(row)
            cues.append(row)
        except DataError as error:
            problems.append(Problem(row.name, str(error).removeprefix(f"{row.name}: ")))
    return cues, problems


def _check_cue(row: Row, frame: Frame) -> _Checked:
    problem = unreadable(row)
    if problem is not None:
        return _Checked(math.nan, [problem])
    box = np.array(cue_box(row), dtype=np.float64)
    moved = convert_frame(box, Frame.ORIGINAL, frame, original_size=row.size, shown_size=row.shown_size)
    texts = [str(list(map(int, sides))) for sides in itertools.product(*_both_ways(moved))]
    answers = [f"<think>found</think><answer>{text}</answer>" for text in sorted(set(texts))]
    parts = score_cues(answers, [row] * len(answers), frame)
    problems = [] if parts.format.all() else [Problem(row.name, "an answer with its box must be well formed")]
    earned = float(parts.iou.max())
    if earned >= CEILING:
        return _Checked(earned, problems)
    width, height = box[2:] - box[:2]
    why = f"cue of {width:g} x {height:g} pixels, boxes in whole numbers of {frame.value}"
    return _Checked(
        earned, problems, Problem(row.name, f"a perfect answer has an IoU of {earned:.2f}: {why}")
    )


def _broken_rule(row: Row, answer: str, scored: ScoredRollout, crops: CropSettings) -> str | None:
    """The first rule that a reference rollout breaks."""
    if scored.format != 0:
        return f"a rollout that ends with its answer must be well formed, got {answer!r}"
    if scored.accuracy != 1:
        return f"the accuracy reward must accept its own answer, got {answer!r}"
    if scored.tool_bonus != 1:
        return f"a right answer after a crop must earn the tool bonus, got {scored.tool_bonus:g}"
    regions = len(row.regions or ())
    if 0 < regions <= crops.max_crops and scored.overlap < 1:
        return f"crops of its targets must cover them, got an overlap of {scored.overlap:.3f}"
    return None


def best_box(
    row: Row | Picture, region: Boxes, crops: CropSettings, grounding: GroundingSettings
) -> list[float]:
    """The box, in whole numbers of the model's frame, whose crop earns the most for one region of targets.

    Tries all nested boxes with each side rounded both ways; boxes below the tool's minimum size are widened
    around their center first.

    Args:
        row: the picture, or a row for its first picture; without a `shown_size` it is shown at its own size.
        region: (n, 4) nested boxes, pixels of the original.
        crops: how crops are cut.
        grounding: how crops are compared with the targets.

    Raises:
        BoxError: none of these boxes can be cut.
    """
    picture = Picture(row.image, row.size, row.shown_size)
    shown = row.shown_size or row.size
    wide = _at_least(region, row.size, crops.min_side)
    moved = convert_frame(wide, Frame.ORIGINAL, crops.frame, original_size=row.size, shown_size=shown)
    choices = {tuple(map(float, box)) for level in _both_ways(moved) for box in itertools.product(*level)}
    cut, refusal = {}, BoxError("thin")
    for box in sorted(choices):
        try:
            cut[box] = cut_box(list(box), picture, crops)
        except BoxError as error:
            refusal = error
    if not cut:
        raise refusal
    parts = grounding_parts(
        [[box] for box in cut.values()],
        [region] * len(cut),
        [row.size] * len(cut),
        overlap_threshold=grounding.overlap_threshold,
        iou_weight=grounding.iou_weight,
    )
    # Full coverage comes first: a crop that misses part of the target is not perfect.
    best = max(range(len(cut)), key=lambda index: (parts.overlap[index] >= 1, parts.total[index]))
    return list(list(cut)[best])


def _both_ways(boxes: Boxes) -> NDArray[np.float64]:
    """Each side rounded down and up, on a new last axis."""
    return np.stack([np.floor(boxes), np.ceil(boxes)], axis=-1)


def _at_least(boxes: Boxes, size: Size, min_side: int) -> Boxes:
    """Boxes widened around their center to the minimum side of a crop, kept inside the picture."""
    low, high = boxes[:, :2], boxes[:, 2:]
    missing = np.maximum(min_side - (high - low), 0) / 2
    low, high = low - missing, high + missing
    shift = np.maximum(-low, 0) - np.maximum(high - np.array(size), 0)
    return np.concatenate([low + shift, high + shift], axis=1)


def _ceiling(row: Row, scored: ScoredRollout, frame: Frame) -> Problem | None:
    """A warning if even perfect crops earn little."""
    regions = row.regions or ()
    if len(scored.crops) < len(regions):
        why = f"{len(regions)} regions, {len(scored.crops)} crops allowed"
    elif scored.grounding < CEILING:
        sides = [region[0, 2:] - region[0, :2] for region in regions]
        width, height = min(sides, key=lambda side: float(side.min()))
        why = f"innermost target of {width:g} x {height:g} pixels, boxes in whole numbers of {frame.value}"
    else:
        return None
    rule = f"perfect crops earn {scored.grounding:.2f} of 1 (IoU {scored.iou:.2f}): {why}"
    return Problem(row.name, rule)


# --- across rows -------------------------------------------------------------------------------------


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())


def _gold_texts(row: Row) -> set[str]:
    """The accepted answers as normalized texts; with choices, the text of the right option."""
    letter = _gold_letter(row)
    if letter is None or row.choices is None:
        return set(map(_normalized, row.answer))
    return {_normalized(row.choices[ord(letter) - ord("A")])}


def _gold_letter(row: Row) -> str | None:
    letters = [chr(ord("A") + index) for index in range(len(row.choices or ()))]
    return next((each for each in letters if answers_match(each, list(row.answer), row.choices)), None)


def _picture_keys(rows: Sequence[Row]) -> dict[Path, object]:
    """A key per picture, equal for equal content. Reads only files whose length is not unique."""
    lengths = {image: file_bytes(image) for image in _images(rows)}
    shared = Counter(lengths.values())
    return {image: _digest(image) if shared[length] > 1 else length for image, length in lengths.items()}


def _images(rows: Iterable[Row]) -> list[Path]:
    """The distinct pictures of all rows."""
    return list(dict.fromkeys(picture.image for row in rows for picture in row.pictures))


def _digest(image: Path) -> bytes:
    with opened(image) as file:
        return hashlib.sha256(file.read()).digest()


def _question(row: Row) -> Hashable:
    return _normalized(row.question)


def _duplicates(rows: Sequence[Row], question_key: Callable[[Row], Hashable]) -> list[Problem]:
    keys, found = _picture_keys(rows), []
    first: dict[tuple[object, Hashable], Row] = {}
    for row in rows:
        pictures = tuple(keys[picture.image] for picture in row.pictures)
        before = first.setdefault((pictures, question_key(row)), row)
        if before is not row:
            other = "" if _gold_texts(before) & _gold_texts(row) else ", but another answer"
            found.append(Problem(row.name, f"same picture and question as {before.name}{other}"))
    return found


def _leaks(rows: Sequence[Row]) -> list[Problem]:
    found = []
    for row in rows:
        question, gold = _normalized(row.question), _gold_texts(row)
        if all(_names(question, _normalized(choice)) for choice in row.choices or ()) and row.choices:
            continue  # "red or blue?" with both as choices gives nothing away
        leaked = sorted(text for text in gold if len(text) > 1 and _names(question, text))
        if leaked:
            found.append(Problem(row.name, f"the question holds its answer {leaked[0]!r}"))
    return found


def _names(question: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(text)}(?!\w)", question) is not None


def _options_in_questions(rows: Sequence[Row]) -> list[Problem]:
    """Questions that list their options: shown twice, or answered by a letter that is not accepted."""
    found = []
    for row in rows:
        listed = split_choices(row.question)
        if listed is not None and row.choices is None:
            found.append(
                Problem(row.name, f"the question lists {len(listed[1])} options; put them into choices")
            )
        elif listed is not None or (row.choices and _holds_all(row.question, row.choices)):
            found.append(Problem(row.name, "the question holds the options, which are shown below it anyway"))
    return found


def _holds_all(question: str, choices: Sequence[str]) -> bool:
    """Whether a question has each option on its own line, with or without its letter."""
    lines = {_normalized(_LEAD.sub("", line)) for line in question.splitlines()[1:]}
    return all(_normalized(_LEAD.sub("", choice)) in lines for choice in choices)


_LEAD = re.compile(r"^\s*(?:\([A-Z]\)|[A-Z][.):])\s*(?=\S)")
"""The leading letter of an option."""


def _picture_marks(rows: Sequence[Row]) -> list[Problem]:
    rule = f"the question holds the text {IMAGE_TOKEN!r}; the picture comes before it anyway: leave it out"
    return [Problem(row.name, rule) for row in rows if IMAGE_TOKEN in row.question]


def _lettered_choices(rows: Sequence[Row]) -> list[Problem]:
    """Rows whose options all begin with their own letters: the model would read "A. A. red"."""
    found = []
    for row in rows:
        leads = [_LEAD.match(choice) for choice in row.choices or ()]
        letters = [lead[0].strip(" ().:\t") for lead in leads if lead is not None]
        if leads and letters == [chr(ord("A") + index) for index in range(len(leads))]:
            rule = f"choices begin with their own letters, such as {row.choices[0]!r}"  # type: ignore[index]
            found.append(Problem(row.name, f"{rule}; the letters are added when they are shown"))
    return found


def _equal_choices(rows: Sequence[Row]) -> list[Problem]:
    found = []
    for row in rows:
        letters = defaultdict(list)
        for index, choice in enumerate(row.choices or ()):
            letters[_normalized(choice)].append(chr(ord("A") + index))
        for text, equal in letters.items():
            if len(equal) > 1:
                found.append(Problem(row.name, f"choices {' and '.join(equal)} are both {text!r}"))
    return found


def _letter_bias(path: Path, rows: Sequence[Row]) -> list[Problem]:
    letters, chance = _letters(rows)
    total = sum(letters.values())
    if total < _ENOUGH_ROWS:
        return []
    letter, count = letters.most_common(1)[0]
    if count / total <= chance + _IMBALANCE:
        return []
    rule = f"always answering {letter!r} is right in {count / total:.0%} of the rows with choices"
    return [Problem(str(path), f"{rule}, guessing in {chance:.0%}")]


def _letters(rows: Sequence[Row]) -> tuple[Counter[str], float]:
    """How often each letter is right, and the chance of guessing right."""
    pairs = [(letter, len(row.choices or ())) for row in rows if (letter := _gold_letter(row)) is not None]
    return Counter(letter for letter, _ in pairs), float(np.mean([1 / n for _, n in pairs] or [0.0]))


# --- statistics --------------------------------------------------------------------------------------


def _statistics(rows: Sequence[Row], earned: Sequence[float], crops: CropSettings) -> dict[str, Any]:
    letters, chance = _letters(rows)
    sizes = {picture.image: picture.size for row in rows for picture in row.pictures}
    pixels = sorted(sizes.values(), key=lambda size: size[0] * size[1])
    shown = [(row, row.shown_sizes) for row in rows if row.shown_sizes is not None]
    regions = [(target.boxes, row.pictures[target.image - 1].size) for row in rows for target in row.targets]
    several = _counts(len(row.pictures) for row in rows if len(row.pictures) > 1)
    return {
        "well_formed_rows": len(rows),
        "pictures": len(pixels),
        "smallest_picture": list(pixels[0]) if pixels else None,
        "median_picture": list(pixels[len(pixels) // 2]) if pixels else None,
        "largest_picture": list(pixels[-1]) if pixels else None,
        "converted_pictures": _converted(rows),
        "rows_with_shown_size": len(shown),
        "rows_shown_in_full": sum(_is_shown_in_full(row, crops.factor) for row, _ in shown),
        "shown_tokens": _counts(sum(tokens_of(size, crops.factor) for size in each) for _, each in shown),
        "rows_with_choices": sum(row.choices is not None for row in rows),
        "letters": dict(sorted(letters.items())),
        "right_by_guessing": chance if letters else None,
        "rows_with_targets": sum(row.regions is not None for row in rows),
        "regions_per_row": _counts(len(row.regions) for row in rows if row.regions is not None),
        "boxes_per_region": _counts(len(region) for region, _ in regions),
        "innermost_share_of_picture": _spread([_share(region[0], size) for region, size in regions]),
        "perfect_crop_earns": _spread([each for each in earned if not math.isnan(each)]),
        **({"rows_with_several_pictures": several} if several else {}),
    }


def _converted(rows: Sequence[Row]) -> dict[str, int]:
    """Number of pictures that are converted before they are shown, by conversion."""
    found: Counter[str] = Counter()
    for path in _images(rows):
        with contextlib.suppress(OSError):  # a missing picture is reported as a problem elsewhere
            found.update(read_header(path).conversions)
    return dict(sorted(found.items()))


def _share(box: Any, size: Size) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1])) / (size[0] * size[1])


def _is_shown_in_full(row: Row, factor: int) -> bool:
    """Whether the overview has full resolution, so that a crop could show nothing new."""
    return all(picture.shown_size == native_size(picture.size, factor) for picture in row.pictures)


def _counts(values: Iterable[int]) -> dict[int, int]:
    return dict(sorted(Counter(values).items()))


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}
