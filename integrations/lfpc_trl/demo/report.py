"""The report of the demo: one self-contained HTML file.

It contains no scripts, and a model's output is always inserted as text, never as HTML.
"""

import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image

from lfpc_trl.demo.goals import Results, check_goals, is_known
from lfpc_trl.evaluate.in_process import EvaluatedRollout
from lfpc_trl.files import write_atomic
from lfpc_trl.html.standalone import COLOURS, draw, jpeg_url, template
from lfpc_trl.pictures.originals import load_original
from lfpc_trl.pictures.sizes import show
from lfpc_trl.rollouts.turns import parts_of

Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""Log records of the trainer by phase, each with `step`."""

PHASES = {
    "warm": "Before training",
    "stage1": "After stage 1",
    "stage2": "After stage 2",
    "control": "Control",
}
"""The phases of a report in reading order, with their display names."""

# Sides in pixels. They keep a dozen questions with four phases each under about 4 MB.
_PICTURE, _OVERVIEW, _CROP = 720, 480, 240
_TEXT_LIMIT = 1500  # characters of one model turn, so that runaway text does not fill the page

# key, name, kind of number, explanation
_TABLE = (
    ("accuracy", "Accuracy", "rate", "questions answered correctly"),
    ("accuracy_without_tool", "… tool not offered", "rate", "the model must answer from the overview alone"),
    ("accuracy_noise_crop", "… crops replaced with noise", "rate", "low = the model really reads its crops"),
    ("accuracy_target_crop", "… crops replaced with the true region", "rate", "how well does it read?"),
    ("tool_calls", "Crops per question", "number", "crops that were delivered"),
    ("iou", "IoU", "number", "how well the crop matches the region; 1 = exact match"),
    ("overlap", "Overlap", "number", "how much of the needed region the crop covers"),
    ("bbox_ratio", "Crop size", "share", "area of the crop as a share of the picture"),
    ("crop_tokens", "Visual tokens per crop", "count", "cost of a crop"),
    ("format", "Well-formed replies", "rate", "replies in the required format"),
    ("format_noise_crop", "… with noise crops", "rate", "does the format survive a useless crop?"),
    ("questions", "Questions", "count", "on pictures not trained on"),
)

_CONDITIONS = (
    ("accuracy", "its own crops"),
    ("accuracy_target_crop", "true region instead of its crop"),
    ("accuracy_noise_crop", "noise instead of its crop"),
    ("accuracy_without_tool", "no tool offered"),
)

_FORMATS = {"rate": ".0%", "share": ".1%", "number": ".2f", "count": ".0f"}

# Key in the trainer's log, title of the panel, kind of number.
_CURVES = (
    ("reward", "Reward", "number"),
    ("tool_calls", "Crops per question", "number"),
    ("iou", "IoU", "number"),
    ("overlap", "Overlap", "number"),
    ("bbox_ratio", "Crop size, share of the picture", "share"),
    ("crop_tokens", "Visual tokens per crop", "count"),
)

_CURVE_NAMES = {"stage1": "stage 1", "stage2": "stage 2", "control": "control"}
_DASHES = {"stage1": "-", "stage2": "-", "control": (0, (4, 2))}


def write_report(
    path: str | Path,
    *,
    results: Results,
    curves: Curves,
    trajectories: Mapping[str, Sequence[EvaluatedRollout]],
    settings: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
    examples: int = 12,
) -> Path:
    """Write the report as one self-contained HTML file.

    Args:
        path: Where to write; an existing file is replaced.
        results: Metrics by phase (`warm`, `stage1`, `stage2`, `control`; any may be missing), and optionally
            `differences`, `seconds` (by step) and `selection` (by data set, of `select_resolution`).
        curves: Logs by phase (`stage1`, `stage2`, `control`).
        trajectories: Trajectories by phase on the same questions, matched by row id.
        settings: Settings and machine, shown as a list at the end.
        notes: Remarks for the reader, in plain text.
        examples: Number of questions to show, spread evenly over those that every phase answered.

    Returns:
        The path of the report.
    """
    path = Path(path)
    phases = [name for name in PHASES if name in results or trajectories.get(name)]
    html = template("report.html.jinja").render(
        phases={name: PHASES[name] for name in phases},
        questions=_questions(results),
        headline=_headline(results),
        story=_story(results),
        goals=check_goals(results),
        table=_table(results, phases),
        conditions=_conditions(results, phases),
        figures=[
            ("Stage 1", "As in figure 5 of the paper, with two more quantities", _panels(curves, ["stage1"])),
            (
                "Stage 2 against its control",
                "As in figure 6 of the paper: same start, same steps, with and without the new reward",
                _panels(curves, ["stage2", "control"]),
            ),
        ],
        examples=_examples(trajectories, examples),
        seconds={name: f"{value:.0f} s" for name, value in results.get("seconds", {}).items()},
        settings={name: _plain(value) for name, value in (settings or {}).items()},
        notes=list(notes),
    )
    write_atomic(path, html)
    return path


# Words and numbers


def _number(value: Any, kind: str) -> str:
    if not is_known(value):
        return "n/a"
    return format(value, _FORMATS[kind])


def _plain(value: Any) -> str:
    """A setting as text; nested ones as JSON."""
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _questions(results: Results) -> int:
    return max((int(results[name].get("questions", 0)) for name in PHASES if name in results), default=0)


def _headline(results: Results) -> list[tuple[str, str, str]]:
    """The key results: label, number, explanation."""
    warm, first, second, control = (results.get(name, {}) for name in PHASES)
    tiles = [
        (
            "Right answers",
            f"{_number(warm.get('accuracy'), 'rate')} → {_number(first.get('accuracy'), 'rate')}",
            "before training → after stage 1",
            (warm.get("accuracy"), first.get("accuracy")),
        ),
        (
            "… with noise instead of crops",
            _number(first.get("accuracy_noise_crop"), "rate"),
            "after stage 1: does the answer come from the crop?",
            (first.get("accuracy_noise_crop"),),
        ),
        (
            "Fit of the crop (IoU)",
            f"{_number(first.get('iou'), 'number')} → {_number(second.get('iou'), 'number')}",
            f"stage 1 → stage 2; the control ends at {_number(control.get('iou'), 'number')}",
            (first.get("iou"), second.get("iou")),
        ),
        (
            "Crop, share of the picture",
            f"{_number(first.get('bbox_ratio'), 'share')} → {_number(second.get('bbox_ratio'), 'share')}",
            f"stage 1 → stage 2; the control ends at {_number(control.get('bbox_ratio'), 'share')}",
            (first.get("bbox_ratio"), second.get("bbox_ratio")),
        ),
    ]
    return [tile[:3] for tile in tiles if all(is_known(value) for value in tile[3])]


def _story(results: Results) -> list[tuple[str, str]]:
    """What each stage changed, generated from the results: pairs of a heading and a paragraph."""
    warm, first, second, control = (results.get(name, {}) for name in PHASES)
    sections: list[tuple[str, str]] = []

    def number(phase: Mapping[str, Any], key: str) -> float:
        value = phase.get(key)
        return float(value) if is_known(value) else math.nan

    def rate(phase: Mapping[str, Any], key: str) -> str:
        return _number(phase.get(key), "rate")

    def both(key: str, kind: str) -> str:
        return f"{_number(control.get(key), kind)} ({_number(second.get(key), kind)})"

    selected = _selected(results.get("selection", {}))
    if selected:
        sections.append(("How coarse is too coarse?", selected))
    accuracy, calls = number(warm, "accuracy"), number(warm, "tool_calls")
    if not math.isnan(accuracy):
        sections.append(
            (
                "Before training",
                (
                    f"{accuracy:.0%} of the answers were right, with {calls:.2f} crops per question. From "
                    f"the overview alone, with no tool offered: {rate(warm, 'accuracy_without_tool')}."
                ),
            )
        )
    after = number(first, "accuracy")
    if not math.isnan(after):
        gain = after - accuracy
        text = (
            f"Accuracy {_moved(accuracy, after, '.0%')}, crops per question "
            f"{_moved(calls, number(first, 'tool_calls'), '.2f')}. "
        )
        lost = after - number(first, "accuracy_noise_crop")
        if not math.isnan(lost):
            text += f"Replacing its crops with noise costs {100 * lost:.0f} points of accuracy: " + (
                "its answers come from the crops. "
                if lost >= 0.3
                else "many of its answers do not come from the crops. "
            )
        before, now = number(warm, "bbox_ratio"), number(first, "bbox_ratio")
        text += f"The crop's share of the picture {_moved(before, now, '.1%')}"
        grew = ": a larger crop covers more, and this reward does not favor tight ones."
        text += grew if now > before else "."
        sections.append(("Stage 1 did not help" if gain <= 0 else "Stage 1 taught it to focus", text))
    if not math.isnan(number(second, "iou")):
        tighter = number(second, "iou") > number(first, "iou")

        def moved(key: str, pattern: str) -> str:
            return _moved(number(first, key), number(second, key), pattern)

        text = (
            f"The fit between crop and region (IoU) {moved('iou', '.2f')}. The crop's share of the picture "
            f"{moved('bbox_ratio', '.1%')}, its visual tokens {moved('crop_tokens', '.0f')}. Its coverage "
            f"of the needed region (overlap) {moved('overlap', '.2f')}, accuracy {moved('accuracy', '.0%')}."
        )
        heading = "Stage 2 taught it to crop precisely" if tighter else "Stage 2 did not tighten the crops"
        sections.append((heading, text))
    if not math.isnan(number(control, "iou")):
        sections.append(
            (
                "Was it the new reward, or just more training?",
                (
                    "The control continued from the same point for as many steps with stage 1's reward. It "
                    f"ends with IoU {both('iou', 'number')}, crops of {both('bbox_ratio', 'share')} of the "
                    f"picture, overlap {both('overlap', 'number')} and accuracy {both('accuracy', 'rate')}; "
                    "stage 2 in brackets. Only the difference between them is due to the grounding reward."
                ),
            )
        )
    return sections


def _selected(summaries: Mapping[str, Any]) -> str:
    """The result of resolution selection, over the data sets for which it used a model."""
    counts: Counter[int] = Counter()
    unchanged = 0
    for summary in summaries.values():
        if not isinstance(summary, Mapping) or summary.get("method") != "answer":
            continue
        counts.update({int(tokens): count for tokens, count in summary["tokens"].items()})
        unchanged += summary["never_diverged"]
    if not counts:
        return ""
    # Pictures of many sizes give many token counts; show the most common ones.
    usual = [f"{count} at {tokens} visual tokens" for tokens, count in counts.most_common(4)]
    return (
        "The model itself decided before training: it answered each question with the picture at its finest "
        "resolution, then coarser and coarser until its answer changed; training shows it that copy. Of "
        f"{counts.total()} questions: {', '.join(usual)}; {unchanged} kept their answer to the coarsest."
    )


def _moved(before: float, after: float, pattern: str) -> str:
    """'rose from a to b', 'fell from a to b' and so on; 'ended at b' without a start."""
    if math.isnan(after):
        return "could not be measured"
    if math.isnan(before):
        return f"ended at {after:{pattern}}"
    start, end = f"{before:{pattern}}", f"{after:{pattern}}"
    if start == end:
        return f"stayed at {end}"
    return f"{'rose' if after > before else 'fell'} from {start} to {end}"


def _table(results: Results, phases: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    rows = []
    for key, name, kind, meaning in _TABLE:
        values = [results.get(phase, {}).get(key) for phase in phases]
        if any(is_known(value) for value in values):
            rows.append((name, meaning, [_number(value, kind) for value in values]))
    return rows


def _conditions(results: Results, phases: Sequence[str]) -> list[tuple[str, str, list[Any]]]:
    """Accuracy bars per condition: phase, its name, and (condition, label, share) for each bar."""
    groups = []
    for phase in phases:
        bars = [
            (name, _number(value, "rate"), float(value))
            for key, name in _CONDITIONS
            if is_known(value := results.get(phase, {}).get(key))
        ]
        if bars:
            groups.append((phase, PHASES[phase], bars))
    return groups


# Curves


def _panels(curves: Curves, arms: Sequence[str]) -> list[tuple[str, str, Markup]]:
    """One small plot per quantity: title, description, SVG."""
    panels = []
    for key, title, kind in _CURVES:
        series = {arm: _series(curves.get(arm, ()), key) for arm in arms}
        series = {arm: points for arm, points in series.items() if len(points)}
        if series:
            texts = []
            for arm, points in series.items():
                smooth = _smooth(points[:, 1])
                texts.append(f"{_CURVE_NAMES[arm]} {_number(smooth[0], kind)} → {_number(smooth[-1], kind)}")
            panels.append((title, " · ".join(texts), _draw(series, kind, salt="-".join([key, *arms]))))
    return panels


def _series(records: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """(n, 2) steps and values; skips records without the key, such as the last of a log."""
    points = [
        (float(record["step"]), float(record[key]))
        for record in records
        if is_known(record.get(key)) and is_known(record.get("step"))
    ]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centered running mean over about a fifth of the run, shorter at both ends."""
    half = len(values) // 10
    return np.array([values[max(0, i - half) : i + half + 1].mean() for i in range(len(values))])


def _draw(series: Mapping[str, NDArray[np.float64]], kind: str, salt: str) -> Markup:
    """Faint line = each step, strong line = running mean."""

    def plot(axes: Axes) -> None:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if kind == "share":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("step", loc="right", labelpad=1)
        for arm, points in series.items():
            steps, values = points.T
            axes.plot(steps, values, color=COLOURS[arm], linewidth=0.8, alpha=0.35)
            axes.plot(
                steps,
                _smooth(values),
                color=COLOURS[arm],
                linewidth=2.2,
                linestyle=_DASHES[arm],
                solid_capstyle="round",
                marker="o" if len(steps) == 1 else None,
            )
        # Start at zero, so that small changes do not look large.
        lowest = min(points[:, 1].min() for points in series.values())
        highest = max(points[:, 1].max() for points in series.values())
        axes.set_ylim(min(0.0, 1.05 * lowest), 1.08 * highest if highest > 0 else 1.0)

    return draw(plot, salt)


# Examples


def _examples(trajectories: Mapping[str, Sequence[EvaluatedRollout]], count: int) -> list[dict[str, Any]]:
    by_phase = {
        phase: {trajectory.row.id: trajectory for trajectory in trajectories[phase]}
        for phase in PHASES
        if trajectories.get(phase)
    }
    if not by_phase:
        return []
    # Spread evenly in evaluation order, so that no example is selected by its outcome.
    first, *others = by_phase.values()
    shared = [name for name in first if all(name in rows for rows in others)]
    places = np.linspace(0, len(shared) - 1, min(count, len(shared))).round().astype(int)
    return [
        _example({phase: rows[shared[place]] for phase, rows in by_phase.items()})
        for place in places.tolist()
    ]


def _example(by_phase: Mapping[str, EvaluatedRollout]) -> dict[str, Any]:
    row = next(iter(by_phase.values())).row
    original = load_original(row.image)
    width, height = original.size
    columns = {phase: _column(trajectory, width) for phase, trajectory in by_phase.items()}
    # Crops of one question share one scale, so that a larger crop looks larger.
    turns = [turn for column in columns.values() for turn in column["turns"]]
    crops = [picture for turn in turns for picture in turn["pictures"]]
    widest = max((picture["size"][0] for picture in crops), default=1)
    for picture in crops:
        picture["share"] = max(20, round(100 * picture["size"][0] / widest))
    return {
        "id": row.id,
        "question": row.question,
        "choices": row.choices or (),
        "answer": " or ".join(row.answer),
        "width": width,
        "height": height,
        "picture": _data_url(original, _PICTURE),
        "overview": _data_url(show(original, row.shown_size), _OVERVIEW) if row.shown_size else None,
        "shown_size": row.shown_size,
        "targets": [_rectangle(box) for region in row.regions or () for box in region],
        "phases": columns,
    }


def _column(trajectory: EvaluatedRollout, width: int) -> dict[str, Any]:
    """One phase's rollout for a question: correctness, boxes, and turns in order."""
    turns: list[dict[str, Any]] = []
    crops = 0
    for message in trajectory.messages:
        texts, images = _parts(message)
        if message.get("role") == "tool":
            pictures = []
            for image in images:
                crops += 1
                pictures.append({"number": crops, "url": _data_url(image, _CROP), "size": image.size})
            turns.append({"role": "tool", "text": "\n".join(texts), "pictures": pictures})
        else:
            turns.append({"role": "model", "text": "\n".join(texts), "pictures": []})
    return {
        "right": trajectory.scored.accuracy > 0,
        "iou": _number(trajectory.scored.iou, "number"),
        "overlap": _number(trajectory.scored.overlap, "number"),
        "crops": [_rectangle(box) for box in trajectory.scored.crops],
        "unit": width / 100,  # lengths inside the drawing, as a share of its width
        "turns": turns,
    }


def _parts(message: Mapping[str, Any]) -> tuple[list[str], list[Image.Image]]:
    """The texts and pictures of one message, for any shape of the model's turn."""
    texts: list[str] = []
    images: list[Image.Image] = []
    content = message.get("content")
    if message.get("reasoning_content"):
        texts.append(str(message["reasoning_content"]))
    if isinstance(content, str):
        texts += [f"→ {piece}" if is_call else piece for piece, is_call in parts_of(content)]
        content = []
    for block in content or ():
        if not isinstance(block, Mapping):
            texts.append(str(block))
        elif isinstance(image := block.get("image"), Image.Image):
            images.append(image)
        else:
            texts.append(str(block.get("text") or ""))
    for call in message.get("tool_calls") or ():
        function = call.get("function", {}) if isinstance(call, Mapping) else {}
        texts.append(f"→ {function.get('name')} {_plain(function.get('arguments'))}")
    kept = [text.strip() for text in texts if text.strip()]
    return [text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + " …" for text in kept], images


def _rectangle(box: Iterable[float]) -> dict[str, float]:
    x0, y0, x1, y1 = (round(float(value), 1) for value in box)
    return {"x": x0, "y": y0, "width": round(x1 - x0, 1), "height": round(y1 - y0, 1)}


def _data_url(image: Image.Image, side: int) -> str:
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=72 if side == _PICTURE else 82, optimize=True)
    return jpeg_url(buffer.getvalue())
