"""Writes docs/results/miniature.md and its plots from a finished run; no figure there is typed by hand.

python -m benchmarks.miniature.page OUTPUT [PAGE]
"""

import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.miniature.jobs import HIGH, LOW
from benchmarks.miniature.plan import STAGE_1, evaluation_name
from benchmarks.miniature.runner import marker, outcome
from benchmarks.miniature.verdicts import EXPERIMENTS, FAILED, HELD, NOISY, Claim, Figure, interval

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "miniature.md"
RUN = "run.json"

Seed = dict[str, dict[str, float | None]]
"""The evaluations of a seed, by `evaluation_name`."""

MODELS = {
    "warm": "before training",
    "gap": "stage 1 with the gap",
    "no-gap": "stage 1 without the gap",
    "stage2": "stage 2, full reward",
    "control": "control: stage 1's reward",
    "no-overlap": "without the condition on the overlap",
    "no-iou": "without the IoU part",
    "no-l1": "without the distance part",
    "hard": "trained at the coarsest",
    "random": "trained at a random level",
    "mixed": "one stage, mixed data, full reward",
    "warm-pairs": "before training",
    "pairs-best": "`best`",
    "pairs-last": "`last`",
    "pairs-mean": "`mean`",
}
METRICS = {
    "accuracy": "accuracy",
    "accuracy_without_tool": "accuracy without the tool",
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
}
_CROPS = ("accuracy", "tool_calls", "iou", "overlap", "bbox_ratio", "crop_tokens", "format")
_LOOKING = (
    "accuracy",
    "accuracy_without_tool",
    "lost_noise_crop",
    "lost_elsewhere",
    "format_noise_crop",
    "format_elsewhere",
    "tool_calls",
    "overlap",
)
# Per experiment: heading of a table, its models, budget, data, columns.
_TABLES: dict[str, list[tuple[str, Sequence[str], int, str, Sequence[str]]]] = {
    "Stage 1: with the gap against without": [
        (f"Overviews of {LOW} tokens, unreadable", STAGE_1, LOW, "test", _LOOKING),
        (f"Overviews of {HIGH} tokens, readable", STAGE_1, HIGH, "test", _LOOKING),
    ],
    "Stage 2: the grounding reward against more of stage 1": [
        ("", ("gap", "stage2", "control"), LOW, "test", _CROPS)
    ],
    "Parts of the grounding reward": [
        ("", ("stage2", "no-overlap", "no-iou", "no-l1", "control"), LOW, "test", _CROPS)
    ],
    "Which resolution stage 1 trains at": [("", ("gap", "hard", "random"), LOW, "test", _CROPS)],
    "Two stages against one on mixed data": [("", ("stage2", "mixed"), LOW, "test", _CROPS)],
    "Several crops: which one is scored": [
        ("", ("warm-pairs", "pairs-best", "pairs-last", "pairs-mean"), LOW, "test-pairs", _CROPS)
    ],
}
# Per experiment: what its plot shows.
_PLOTS = {
    "Stage 1: with the gap against without": ("stage1", ("accuracy", "lost_noise_crop", "lost_elsewhere")),
    "Stage 2: the grounding reward against more of stage 1": ("stage2", ("iou", "overlap", "accuracy")),
    "Parts of the grounding reward": ("reward", ("iou", "overlap", "accuracy")),
    "Which resolution stage 1 trains at": ("resolution", ("accuracy", "overlap")),
    "Two stages against one on mixed data": ("mixed", ("iou", "overlap", "accuracy")),
    "Several crops: which one is scored": ("pairs", ("iou", "overlap", "accuracy")),
}


def read_seeds(output: Path, seeds: Iterable[int], experiment: str) -> dict[int, Seed]:
    """The evaluations that an experiment needs, of the seeds that have them all."""
    wanted = {
        evaluation_name(model, data, tokens)
        for _, models, tokens, data, _ in _TABLES[experiment]
        for model in models
    }
    return {
        seed: {name: outcome(output / f"seed-{seed}", name) for name in wanted}
        for seed in seeds
        if all(marker(output / f"seed-{seed}", name).exists() for name in wanted)
    }


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    digits = 1 if statistics.fmean(known) >= 10 else 3
    deviation = statistics.stdev(known) if len(known) > 1 else 0.0
    return f"{statistics.fmean(known):.{digits}f} ± {deviation:.{digits}f}"


def _table(
    seeds: Sequence[Seed], title: str, models: Sequence[str], tokens: int, data: str, metrics: Sequence[str]
) -> list[str]:
    lines = [f"**{title}**", ""] if title else []
    lines += ["| | " + " | ".join(METRICS[metric] for metric in metrics) + " |"]
    lines += ["| --- |" + " ---: |" * len(metrics)]
    for model in models:
        figures = [Figure(model, metric, tokens, data) for metric in metrics]
        cells = [spread([figure.of(seed) for seed in seeds]) for figure in figures]
        lines.append(f"| {MODELS[model]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _verdicts(seeds: Sequence[Seed], claims: Sequence[Claim]) -> list[str]:
    lines = ["| claim | the paper | difference per seed | mean, 95 % interval | verdict |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for claim in claims:
        differences = claim.differences(seeds)
        digits = 1 if claim.first.metric == "crop_tokens" else 3
        each = ", ".join(f"{value:+.{digits}f}" for value in differences)
        found = interval(differences)
        mean = f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
        lines.append(f"| {claim.text} | {claim.paper} | {each} | {mean} | **{claim.verdict(seeds)}** |")
    return [*lines, ""]


def _plot(path: Path, seeds: Sequence[Seed], experiment: str) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Canvas

    _, metrics = _PLOTS[experiment]
    tables = _TABLES[experiment]
    # Text as text, and the same figures give the same file.
    mpl.rcParams |= {"svg.hashsalt": "miniature", "svg.fonttype": "none"}
    canvas = Canvas(figsize=(2.6 * len(metrics), 2.4 * len(tables)), layout="constrained")
    axes = canvas.subplots(len(tables), len(metrics), squeeze=False)
    for row, (title, models, tokens, data, _) in zip(axes, tables, strict=True):
        for ax, metric in zip(row, metrics, strict=True):
            for place, model in enumerate(models):
                values = [Figure(model, metric, tokens, data).of(seed) for seed in seeds]
                ax.plot([place] * len(values), values, "o", alpha=0.6, color=f"C{place}")
                ax.plot([place - 0.25, place + 0.25], [statistics.fmean(values)] * 2, color=f"C{place}")
            ax.set_title(f"{METRICS[metric]}\n{title}" if title else METRICS[metric], fontsize=7)
            ax.set_xticks(range(len(models)), models, fontsize=6, rotation=20)
            ax.tick_params(axis="y", labelsize=6)
            ax.margins(x=0.15, y=0.15)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, format="svg", metadata={"Date": None})


def _about(run: dict[str, Any], output: Path) -> list[str]:
    seeds = run["seeds"]
    spent = sum(
        json.loads(path.read_text(encoding="utf-8"))["seconds"]
        for seed in seeds
        for path in (output / f"seed-{seed}" / "done").glob("*.json")
    )
    levels = []
    for seed in seeds:
        chosen = outcome(output / f"seed-{seed}", "selection")["answer"]
        levels.append(
            f"seed {seed}: "
            + ", ".join(f"{count} at {tokens} tokens" for tokens, count in chosen["tokens"].items())
            + f" (wrong at the finest level: {chosen['wrong_at_full']} of {chosen['rows']})"
        )
    commit = f"Run on {run['date']}, trained at commit `{run['commit']}`, evaluated at commit "
    commit += f"`{run['evaluation_commit']}`, {run['machine']}, {run['workers']} processes"
    time = f"{spent / 60:.0f} minutes of one thread for {len(seeds)} seeds ({', '.join(map(str, seeds))})"
    return [
        f"{commit} of one thread; {time}. The shipped checkpoint was `{run['checkpoint']}` (its SHA-256).",
        "",
        "Resolution selection by the answer: " + "; ".join(levels) + ".",
        "",
    ]


def write(output: Path, page: Path = PAGE) -> None:
    """Write the page; an experiment shows the seeds that have finished it."""
    run = json.loads((output / RUN).read_text(encoding="utf-8"))
    before, after = (
        (Path(__file__).parent / "page.md").read_text(encoding="utf-8").split("<!-- figures -->\n")
    )
    lines: list[str] = []
    verdicts: Counter[str] = Counter()
    for experiment, claims in EXPERIMENTS.items():
        name, _ = _PLOTS[experiment]
        finished = read_seeds(output, run["seeds"], experiment)
        lines += [f"## {experiment}", ""]
        if len(finished) < len(run["seeds"]):
            numbers = ", ".join(map(str, finished)) or "none"
            lines += [f"Seeds that have finished it: {numbers}.", ""]
        if not finished:
            continue
        seeds = list(finished.values())
        _plot(page.parent / "miniature" / f"{name}.svg", seeds, experiment)
        for table in _TABLES[experiment]:
            lines += _table(seeds, *table)
        lines += [f"![{experiment}: a dot per seed, a line at the mean](miniature/{name}.svg)", ""]
        lines += _verdicts(seeds, claims)
        verdicts.update(claim.verdict(seeds) for claim in claims)
    total = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (HELD, FAILED, NOISY))
    lines = [*_about(run, output), f"Of {verdicts.total()} claims: {total}.", "", *lines]
    page.write_text(before + "\n".join(lines) + "\n" + after, encoding="utf-8")


if __name__ == "__main__":
    write(*(Path(argument) for argument in sys.argv[1:]))
