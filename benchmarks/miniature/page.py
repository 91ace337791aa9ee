"""Writes docs/results/miniature.md and its plots from a finished run; no figure there is typed by hand.

python -m benchmarks.miniature.page OUTPUT [PAGE]
"""

import dataclasses
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.miniature import power
from benchmarks.miniature.jobs import HIGH, LOW, SCALES
from benchmarks.miniature.plan import CURVES, RUN, STAGE_1, curve_name, evaluation_name
from benchmarks.miniature.runner import marker, outcome
from benchmarks.miniature.verdicts import (
    EXPERIMENTS,
    FAILED,
    FAMILY,
    HELD,
    LEFT_OUT,
    NOISY,
    Claim,
    Figure,
    Seed,
    decisions,
    interval,
)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "miniature.md"
RECORD = "run.json"
SEEDS = range(11, 21)
"""Fresh: no figure and no choice of a setting has seen them."""

MODELS = {
    "warm": "before training",
    "gap": "stage 1 with the gap",
    "no-gap": "stage 1 without the gap",
    "stage2": "stage 2, full reward",
    "control": "control: stage 1's reward",
}
METRICS = {
    "accuracy": "accuracy",
    "lost_noise_crop": "lost with noise crops",
    "lost_elsewhere": "lost with crops from a wrong place",
    "format_noise_crop": "well formed with noise crops",
    "format_elsewhere": "well formed with crops from a wrong place",
    "tool_calls": "crops per question",
    "iou": "IoU",
    "overlap": "overlap",
    "bbox_ratio": "crop / picture",
    "crop_tokens": "tokens per crop",
    "format": "well formed",
    "fixed": "fixed before the crop",
    "kept_wrong": "kept, of wrong ones",
    "forced_accuracy": "accuracy, answering at once",
    "forced_answers": "answers, answering at once",
}
_CROPS = ("accuracy", "tool_calls", "iou", "overlap", "bbox_ratio", "crop_tokens", "format")
_LOOKING = (
    "accuracy",
    "lost_noise_crop",
    "lost_elsewhere",
    "format_noise_crop",
    "format_elsewhere",
    "tool_calls",
    "overlap",
)
_BEFORE = ("fixed", "kept_wrong", "forced_accuracy", "forced_answers", "accuracy", "tool_calls")
_BUDGETS = ((f"Overviews of {LOW} tokens, unreadable", LOW), (f"Overviews of {HIGH} tokens, readable", HIGH))


@dataclasses.dataclass(frozen=True)
class Part:
    """How the page shows an experiment: name of its plot, metrics plotted, models, columns, budgets."""

    plot: str
    plotted: Sequence[str]
    models: Sequence[str]
    columns: Sequence[str]
    budgets: Sequence[tuple[str, int]] = (("", LOW),)


PARTS = {
    "Stage 1: with the gap against without": Part(
        "stage1", ("accuracy", "lost_noise_crop", "lost_elsewhere"), STAGE_1, _LOOKING, _BUDGETS
    ),
    "Answering before looking": Part("before", ("fixed", "kept_wrong"), STAGE_1, _BEFORE, _BUDGETS),
    "Stage 2: the grounding reward against more of stage 1": Part(
        "stage2", ("iou", "overlap", "accuracy"), ("gap", "stage2", "control"), _CROPS
    ),
}


def evaluations(models: Iterable[str] = RUN) -> list[str]:
    """The names of all evaluations of some models."""
    return [
        evaluation_name(model, "test", tokens, sampled=sampled)
        for model in models
        for tokens in ((LOW, HIGH) if model in STAGE_1 else (LOW,))
        for sampled in (False, True)
    ]


def read_seeds(output: Path, seeds: Iterable[int], names: Sequence[str]) -> dict[int, Seed]:
    """The outcomes of these jobs, of the seeds that have them all."""
    return {
        seed: {name: outcome(output / f"seed-{seed}", name) for name in names}
        for seed in seeds
        if all(marker(output / f"seed-{seed}", name).exists() for name in names)
    }


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    digits = 1 if statistics.fmean(known) >= 10 else 3
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{statistics.fmean(known):.{digits}f} ± {deviation:.{digits}f}"


def span(differences: Sequence[float], claim: Claim) -> str:
    """Mean difference with its 95 % interval, or a dash where it was not measured in every seed."""
    if any(math.isnan(value) for value in differences):
        return "-"
    digits, found = _digits(claim), interval(differences)
    return f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"


def _digits(claim: Claim) -> int:
    return 1 if claim.first.metric == "crop_tokens" else 3


def overview(seeds: Sequence[Seed], *, decided: bool) -> list[str]:
    """The one table: what is claimed, the paper's figure, ours, the verdict, and the power of ten seeds."""
    greedy, sampled = decisions(FAMILY, seeds), decisions(FAMILY, seeds, sampled=True)
    lines = ["| claim | the paper | ours, 95 % interval | sampled | p (Holm) | verdict | power |"]
    lines += ["| --- | --- | --- | --- | ---: | --- | ---: |"]
    for claim in FAMILY:
        found = greedy[claim]
        p, verdict = (_p(found.p), f"**{found.verdict}**") if decided else ("", "")
        lines.append(
            f"| {claim.text} | {claim.paper} | {span(found.differences, claim)} | "
            f"{span(sampled[claim].differences, claim)} | {p} | {verdict} | {power.power_of(claim):.2f} |"
        )
    return [*lines, ""]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def not_run() -> list[str]:
    """The claims that ten seeds cannot decide, with what the first run found."""
    lines = ["| claim | the paper | first run, three seeds | seeds needed |", "| --- | --- | --- | ---: |"]
    for claim in LEFT_OUT:
        needed = power.needed_by(claim) or f"over {power.MOST}"
        found = span(power.differences_of(claim), claim)
        lines.append(f"| {claim.text} | {claim.paper} | {found} | {needed} |")
    return [*lines, ""]


def _table(seeds: Sequence[Seed], part: Part, title: str, tokens: int) -> list[str]:
    lines = [f"**{title}**", ""] if title else []
    lines += ["| | " + " | ".join(METRICS[metric] for metric in part.columns) + " |"]
    lines += ["| --- |" + " ---: |" * len(part.columns)]
    for model in part.models:
        figures = [Figure(model, metric, tokens) for metric in part.columns]
        cells = [spread([figure.of(seed) for seed in seeds]) for figure in figures]
        lines.append(f"| {MODELS[model]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _per_seed(seeds: dict[int, Seed], claims: Sequence[Claim]) -> list[str]:
    lines = ["| claim | " + " | ".join(f"seed {seed}" for seed in seeds) + " |"]
    lines += ["| --- |" + " ---: |" * len(seeds)]
    for claim in claims:
        each = " | ".join(f"{value:+.{_digits(claim)}f}" for value in claim.differences(list(seeds.values())))
        lines.append(f"| {claim.text} | {each} |")
    return [*lines, ""]


def _canvas(rows: int, columns: int) -> Any:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    # Text as text, and the same figures give the same file.
    mpl.rcParams |= {"svg.hashsalt": "miniature", "svg.fonttype": "none"}
    canvas = Canvas(figsize=(2.6 * columns, 2.4 * rows), layout="constrained")
    return canvas, canvas.subplots(rows, columns, squeeze=False)


def _save(canvas: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, format="svg", metadata={"Date": None})


def _plot(path: Path, seeds: Sequence[Seed], part: Part) -> None:
    canvas, axes = _canvas(len(part.budgets), len(part.plotted))
    for row, (title, tokens) in zip(axes, part.budgets, strict=True):
        for ax, metric in zip(row, part.plotted, strict=True):
            for place, model in enumerate(part.models):
                values = [Figure(model, metric, tokens).of(seed) for seed in seeds]
                ax.plot([place] * len(values), values, "o", alpha=0.6, color=f"C{place}")
                known = [value for value in values if not math.isnan(value)]
                if known:
                    ax.plot([place - 0.25, place + 0.25], [statistics.fmean(known)] * 2, color=f"C{place}")
            ax.set_title(f"{METRICS[metric]}\n{title}" if title else METRICS[metric], fontsize=7)
            ax.set_xticks(range(len(part.models)), part.models, fontsize=6, rotation=20)
            ax.tick_params(axis="y", labelsize=6)
            ax.margins(x=0.15, y=0.15)
    _save(canvas, path)


def curves(output: Path, seeds: Iterable[int], scale: str, path: Path) -> list[str]:
    """Plot how many answers are fixed before the crop, step by step of stage 1, and say where the plot is."""
    size = SCALES[scale]
    steps = [0, *size.curve_steps, size.stage1_steps]

    def names(model: str, tokens: int) -> list[str]:
        return [
            evaluation_name("warm", "test", tokens),
            *(curve_name(model, step, tokens) for step in size.curve_steps),
            evaluation_name(model, "test", tokens),
        ]

    every = [name for model in CURVES for tokens in (LOW, HIGH) for name in names(model, tokens)]
    found = read_seeds(output, seeds, every)
    if not found:
        return []
    canvas, axes = _canvas(2, 2)
    for row, (title, tokens) in zip(axes, _BUDGETS, strict=True):
        for ax, metric in zip(row, ("fixed", "accuracy"), strict=True):
            for colour, model in enumerate(CURVES, start=1):
                lines = [
                    [
                        math.nan if seed[name][metric] is None else seed[name][metric]
                        for name in names(model, tokens)
                    ]
                    for seed in found.values()
                ]
                for line in lines:
                    ax.plot(steps, line, color=f"C{colour}", alpha=0.25, linewidth=0.8)
                means = [statistics.fmean(values) for values in zip(*lines, strict=True)]
                ax.plot(steps, means, color=f"C{colour}", label=MODELS[model])
            ax.set_title(f"{METRICS[metric]}\n{title}", fontsize=7)
            ax.set_xlabel("step of stage 1", fontsize=6)
            ax.tick_params(labelsize=6)
            ax.legend(fontsize=5)
    _save(canvas, path)
    shown = f"a thin line per seed ({', '.join(map(str, found))}), a thick one for the mean"
    return [f"![Over training: {shown}](miniature/{path.name})", ""]


def _about(run: dict[str, Any], output: Path, whole: Iterable[int]) -> list[str]:
    whole = list(whole)
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for seed in run["seeds"]
        for path in (output / f"seed-{seed}" / "done").glob("*.json")
    ]
    hours = sum(record["processor_seconds"] for record in records) / 3600
    numbers = " ".join(map(str, run["seeds"]))
    command = f"`python -m benchmarks.miniature OUTPUT --seeds {numbers}` at commit `{run['commit']}`"
    machine = f"{run['machine']}, {run['workers']} process(es) of one thread, {hours:.1f} processor hours"
    shipped = f"The shipped checkpoint was `{run['checkpoint']}` (its SHA-256)"
    done = f"Whole seeds: {', '.join(map(str, whole)) or 'none'} of {len(run['seeds'])}"
    lines = [f"{command}, begun on {run['date']}; {machine}. {done}. {shipped}.", ""]
    own = [seed for seed in whole if outcome(output / f"seed-{seed}", "warm")["start"] != "shipped"]
    if own:
        lines += [f"Seeds that start from a checkpoint of their own: {', '.join(map(str, own))}.", ""]
    levels = []
    for seed in whole:
        chosen = outcome(output / f"seed-{seed}", "selection")["answer"]
        levels.append(
            f"seed {seed}: "
            + ", ".join(f"{count} at {tokens}" for tokens, count in chosen["tokens"].items())
            + f" (wrong at the finest level: {chosen['wrong_at_full']} of {chosen['rows']})"
        )
    if levels:
        lines += ["Tokens that selection by the answer chose: " + "; ".join(levels) + ".", ""]
    return lines


def write(output: Path, page: Path = PAGE) -> None:
    """Write the page over the whole seeds; verdicts stand there once every seed of the run is whole."""
    run = json.loads((output / RECORD).read_text(encoding="utf-8"))
    before, after = (
        (Path(__file__).parent / "page.md").read_text(encoding="utf-8").split("<!-- figures -->\n")
    )
    found = read_seeds(output, run["seeds"], ["selection", "warm", *evaluations()])
    seeds = list(found.values())
    decided = len(found) == len(run["seeds"])
    lines = _about(run, output, found)
    if decided:
        verdicts = Counter(decision.verdict for decision in decisions(FAMILY, seeds).values())
        total = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (HELD, FAILED, NOISY))
        lines += [f"Of {verdicts.total()} claims: {total}.", ""]
    else:
        lines += ["The run is under way: no verdict before its last seed is whole.", ""]
    if seeds:
        lines += overview(seeds, decided=decided)
        lines += ["## Not run again: out of the reach of ten seeds", "", *not_run()]
        for experiment, part in PARTS.items():
            lines += [f"## {experiment}", ""]
            _plot(page.parent / "miniature" / f"{part.plot}.svg", seeds, part)
            for title, tokens in part.budgets:
                lines += _table(seeds, part, title, tokens)
            lines += [f"![{experiment}: a dot per seed, a line at the mean](miniature/{part.plot}.svg)", ""]
            lines += _per_seed(found, EXPERIMENTS[experiment])
            if part.plot == "before":
                lines += curves(output, found, run["scale"], page.parent / "miniature" / "curves.svg")
    page.write_text(before + "\n".join(lines) + "\n" + after, encoding="utf-8")


if __name__ == "__main__":
    write(*(Path(argument) for argument in sys.argv[1:]))
