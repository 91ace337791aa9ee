"""Writes the figures of docs/results/two-photographs.md; none is typed.

python -m benchmarks.two_photographs_page OUTPUT [PAGE]

OUTPUT is that of `benchmarks.two_photographs`. The claims and the rule that decides them stand here and were
fixed before the figures were in.
"""

import dataclasses
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.miniature.runner import marker, outcome
from benchmarks.miniature.verdicts import FAILED, HELD, NOISY, decide, interval
from lfpc_trl.evaluate.conditions import Condition
from lfpc_trl.evaluate.statistics import difference_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "two-photographs.md"
RUN = "run.json"
BEGIN = "<!-- figures: written by benchmarks/two_photographs_page.py -->\n"
END = "<!-- end of figures -->\n"

MODELS = {"start": "before training", "stage1": "after stage 1"}
CONDITIONS: tuple[Condition, ...] = ("predicted", "no_tool", "noise", "target")
CURVES = {"accuracy": "accuracy", "tool_calls": "crops per rollout", "overlap": "overlap"}
"""Of the rollouts while training."""
PER_QUESTION = {
    "accuracy": "accuracy",
    "looked": "looks",
    "first": "first look into the right picture",
    "overlap": "overlap",
}
OVER_ALL = {
    "accuracy_without_tool": "without the tool",
    "accuracy_noise_crop": "with noise crops",
    "accuracy_target_crop": "with target crops",
    "bbox_ratio": "crop / picture",
    "format": "well formed",
}
Look = dict[str, Any]
"""What `benchmarks.two_photographs.look` returns."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """That a figure of the model after stage 1 is higher than another.

    Attributes:
        text: the claim.
        metric: one of `PER_QUESTION` or `OVER_ALL`.
        how: of which rollouts.
        other: the model, or the condition of the same model, that it is compared with.
    """

    text: str
    metric: str
    how: Literal["greedy", "sampled"]
    other: str


MARGIN = 0.02
"""A difference within it is nothing."""
CLAIMS = (
    Claim("Accuracy rises", "accuracy", "greedy", "start"),
    Claim("Accuracy of sampled rollouts rises", "accuracy", "sampled", "start"),
    Claim("More first looks are into the right picture, sampled", "first", "sampled", "start"),
    Claim("More of the letters is covered, sampled", "overlap", "sampled", "start"),
    Claim("Noise instead of the crops costs accuracy", "accuracy", "greedy", "accuracy_noise_crop"),
)


def value(look: Look, metric: str, how: str = "greedy") -> float:
    """A figure of a model: a mean over the questions that have it; NaN where none has."""
    if metric in OVER_ALL:
        found = look["conditions"][metric]
        return math.nan if found is None else float(found)
    values = [each for each in look[how][metric] if each is not None]
    return statistics.fmean(values) if values else math.nan


def is_finished(output: Path, seed: int) -> bool:
    """Whether everything was measured of a seed."""
    return all(marker(output / f"seed-{seed}", f"{model}-on-test").exists() for model in MODELS)


def looks(output: Path, seed: int) -> dict[str, Look]:
    """What was measured of the models of a seed."""
    return {model: outcome(output / f"seed-{seed}", f"{model}-on-test") for model in MODELS}


def differences(seeds: Sequence[dict[str, Look]], claim: Claim) -> list[float]:
    """What is claimed to be higher minus the other, one value per seed."""
    after = [seed["stage1"] for seed in seeds]
    if claim.other in OVER_ALL:
        others = [value(look, claim.other) for look in after]
    else:
        others = [value(seed[claim.other], claim.metric, claim.how) for seed in seeds]
    return [value(look, claim.metric, claim.how) - other for look, other in zip(after, others, strict=True)]


def write(output: Path, page: Path = PAGE) -> None:
    """Write the figures of the finished seeds between the marks of the page, and its plot beside it."""
    run = json.loads((output / RUN).read_text(encoding="utf-8"))
    seeds = {seed: looks(output, seed) for seed in run["seeds"] if is_finished(output, seed)}
    folder = page.parent / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    curves = [outcome(output / f"seed-{seed}", "stage1") for seed in seeds]
    _draw_curves(folder / "training.svg", curves)
    found = list(seeds.values())
    lines = [
        *_about(run, list(seeds), output),
        *_table(found, PER_QUESTION, ("greedy", "sampled")),
        *_table(found, OVER_ALL, ("greedy",)),
        "Means over the seeds and their standard deviation; the second table is of greedy rollouts.",
        "",
        *_verdicts(found),
        *per_question(seeds),
        f"![The rollouts while training, a line per seed]({page.stem}/training.svg)",
        "",
    ]
    text = page.read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    page.write_text(head + "\n" + "\n".join(lines) + "\n" + tail, encoding="utf-8")


def _about(run: dict[str, Any], seeds: Sequence[int], output: Path) -> list[str]:
    scale = run["scale"]
    spent = {
        name: statistics.fmean(
            json.loads(marker(output / f"seed-{seed}", name).read_text(encoding="utf-8"))["seconds"]
            for seed in seeds
        )
        for name in ("start", "stage1", "stage1-on-test")
    }
    processes = "1 process" if run["workers"] == 1 else f"{run['workers']} processes"
    about = (
        f"Run on {run['date']} at commit `{run['commit']}`, {run['machine']}, {processes} of one thread; "
        f"seeds {', '.join(map(str, seeds))}. The shipped checkpoint was `{run['checkpoint']}` (its SHA-256)."
    )
    of_each = (
        f"{scale['common_steps']} supervised steps to the starting model that the seeds share. Per seed: "
        f"{scale['own_steps']} more on scenes of its own ({spent['start']:.0f} s), {scale['steps']} GRPO "
        f"steps of {scale['prompts']} questions with {scale['rollouts']} rollouts each "
        f"({spent['stage1']:.0f} s), learning rate {scale['learning_rate']:g}, "
        f"{4 * scale['training_pairs']} questions to train on, {4 * scale['test_pairs']} test questions "
        f"({spent['stage1-on-test']:.0f} s per model). Seconds are means over the seeds, on a machine that "
        "did other work beside."
    )
    return [about, "", of_each, ""]


def _table(seeds: Sequence[dict[str, Look]], metrics: dict[str, str], ways: Sequence[str]) -> list[str]:
    titles = [f"{title}, {how}" if len(ways) > 1 else title for how in ways for title in metrics.values()]
    lines = ["| | " + " | ".join(titles) + " |", "| --- |" + " ---: |" * len(titles)]
    for model, name in MODELS.items():
        cells = []
        for how in ways:
            for metric in metrics:
                means = [value(seed[model], metric, how) for seed in seeds]
                if any(map(math.isnan, means)):  # a seed without any look
                    cells.append("-")
                    continue
                deviation = statistics.stdev(means) if len(means) > 1 else 0.0
                cells.append(f"{statistics.fmean(means):.3f} ± {deviation:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _verdicts(seeds: Sequence[dict[str, Look]]) -> list[str]:
    lines = ["| claim | difference per seed | mean, 95 % interval | verdict |", "| --- | --- | --- | --- |"]
    verdicts: Counter[str] = Counter()
    for claim in CLAIMS:
        each = differences(seeds, claim)
        unknown = any(math.isnan(one) for one in each)
        verdict = NOISY if unknown else decide(each, "higher", MARGIN)
        verdicts[verdict] += 1
        told = ", ".join("-" if math.isnan(one) else f"{one:+.3f}" for one in each)
        found = interval(each)
        mean = "-" if unknown else f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        lines.append(f"| {claim.text} | {told} | {mean} | **{verdict}** |")
    total = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (HELD, FAILED, NOISY))
    return [f"Of {verdicts.total()} claims: {total}.", "", *lines, ""]


def per_question(seeds: dict[int, dict[str, Look]]) -> list[str]:
    """What stage 1 adds, seed by seed, with intervals over questions."""
    columns = [("greedy", "accuracy"), *(("sampled", metric) for metric in ("accuracy", "first", "overlap"))]
    lines = [
        "| seed | " + " | ".join(f"{PER_QUESTION[metric]}, {how}" for how, metric in columns) + " |",
        "| --- |" + " --- |" * len(columns),
    ]
    for seed, found in seeds.items():
        cells = []
        for how, metric in columns:
            after, before = (np.array(found[name][how][metric], float) for name in ("stage1", "start"))
            gain = difference_of(after, before)
            known = "" if gain.low is None else f" ({gain.low:+.3f} to {gain.high:+.3f})"
            cells.append("-" if gain.value is None else f"{gain.value:+.3f}{known}")
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    over = "After stage 1 minus before; 95 % bootstrap intervals over the test questions that have both."
    return [*lines, "", over, ""]


def _draw_curves(path: Path, curves: list[list[dict[str, float]]]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text as text, and the same figures give the same file.
    mpl.rcParams |= {"svg.hashsalt": "two-photographs", "svg.fonttype": "none"}
    canvas = Figure(figsize=(6, 2.6), layout="constrained")
    axes = canvas.subplots(1, len(CURVES))
    for ax, (name, title) in zip(axes, CURVES.items(), strict=True):
        for each in curves:
            ax.plot(range(1, len(each) + 1), [line[name] for line in each], linewidth=0.9)
        ax.set_title(title, fontsize=7)
        ax.set_xlabel("step", fontsize=7)
        ax.tick_params(labelsize=6)
    canvas.savefig(path, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    write(*(Path(argument) for argument in sys.argv[1:]))
