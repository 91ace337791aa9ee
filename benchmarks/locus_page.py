"""Writes the figures of docs/results/locus.md from a run of `benchmarks.locus_miniature`; none is typed.

python -m benchmarks.locus_page OUTPUT [PAGE]

The claims and the rule that decides them stand here and were fixed before the figures were in.
"""

import dataclasses
import json
import re
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.miniature.runner import marker, outcome
from benchmarks.miniature.verdicts import FAILED, HELD, NOISY, decide, interval
from lfpc_trl.evaluate.statistics import difference_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results" / "locus.md"
RUN = "run.json"
BEGIN, END = "<!-- figures: written by benchmarks/locus_page.py -->\n", "<!-- end of figures -->\n"

ARMS = ("locus", "control")
EXACT = "start-near"
MODELS = {
    "start": "before training",
    EXACT: "before training, told to answer `near`",
    "locus": "after GRPO with `locus_reward`",
    "control": "control, paid for the box of another cue",
}
METRICS = {
    "greedy": "IoU",
    "half": "IoU of 0.5 or more",
    "near": "answers `near`",
    "sampled": "IoU, sampled",
    "alone": "IoU, surroundings black",
    "cost": "cost of the surroundings",
    "attention": "attention in the box",
    "format": "well formed",
}
OF_EXACT = ("greedy", "half", "sampled")
"""What is measured of a model that is told how to answer."""
Look = dict[str, Any]
"""What `benchmarks.locus_miniature.look` returns."""
PICTURES = 6
_CAPTION = (
    "The first {count} test pictures of seed {seed} and the first cue of each, in the corner. White: where "
    "the cue was cut. Red: the answer before training. Green: the answer after it."
)
SHOWN_SIZE = (252, 168)
"""Of the pictures of the demo's world at `locus_start.SHOWN_TOKENS`."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """That a figure of the trained model differs from that of another model.

    Attributes:
        text: the claim.
        metric: one of `METRICS`.
        other: the model that it is compared with.
        direction: what the claim says of the trained model.
    """

    text: str
    metric: str
    other: str
    direction: Literal["higher", "lower"] = "higher"


MARGIN = 0.02
"""A difference within it is nothing."""
CLAIMS = (
    Claim("Boxes fit better than before", "greedy", "start"),
    Claim("Boxes fit better than the control's", "greedy", "control"),
    Claim("More boxes have an IoU of 0.5 or more than before", "half", "start"),
    Claim("Sampled boxes fit better than before", "sampled", "start"),
    Claim("More of the attention falls into the box than before", "attention", "start"),
    Claim("The surroundings cost less IoU than before", "cost", "start", "lower"),
)


def values(look: Look, metric: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """A metric per test cue; one value for what is known only over all of them."""
    if metric == "half":
        return np.array([iou >= 0.5 for iou in look["greedy"]], dtype=float)
    if metric == "near":
        return np.array(["<think>near</think>" in answer for answer in look["answers"]], dtype=float)
    if metric == "cost":
        return values(look, "alone") - values(look, "greedy")
    return np.atleast_1d(np.array(look[metric], dtype=float))


def looks(output: Path, seed: int) -> dict[str, Look]:
    """What was measured of the models of a seed."""
    return {model: outcome(output / f"seed-{seed}", f"{model}-on-test") for model in MODELS}


def write(output: Path, page: Path = PAGE) -> None:
    """Write the figures between the marks of the page, and its two pictures beside it."""
    run = json.loads((output / RUN).read_text(encoding="utf-8"))
    seeds = {seed: looks(output, seed) for seed in run["seeds"]}
    folder = page.parent / page.stem
    folder.mkdir(parents=True, exist_ok=True)
    curves = {arm: [outcome(output / f"seed-{seed}", arm) for seed in run["seeds"]] for arm in ARMS}
    _draw_curves(folder / "training.svg", curves)
    first = run["seeds"][0]
    _draw_cues(folder / "cues.jpg", output / f"seed-{first}", seeds[first])
    lines = [
        *_about(run, output),
        *_table(list(seeds.values())),
        *_verdicts(list(seeds.values())),
        *per_cue(seeds),
        *_training(curves),
        f"![The IoU of the rollouts while training, a line per seed]({page.stem}/training.svg)",
        "",
        f"![Test cues of seed {first} with their boxes]({page.stem}/cues.jpg)",
        "",
        _CAPTION.format(count=PICTURES, seed=first),
        "",
    ]
    text = page.read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    page.write_text(head + "\n" + "\n".join(lines) + "\n" + tail, encoding="utf-8")


def _about(run: dict[str, Any], output: Path) -> list[str]:
    seeds, scale = run["seeds"], run["scale"]
    spent = {
        name: statistics.fmean(
            json.loads(marker(output / f"seed-{seed}", name).read_text(encoding="utf-8"))["seconds"]
            for seed in seeds
        )
        for name in ("start", "locus", "control", "locus-on-test")
    }
    processes = "1 process" if run["workers"] == 1 else f"{run['workers']} processes"
    about = (
        f"Run on {run['date']} at commit `{run['commit']}`, {run['machine']}, {processes} of one thread; "
        f"seeds {', '.join(map(str, seeds))}. The shipped checkpoint was `{run['checkpoint']}` (its SHA-256)."
    )
    of_each = (
        f"Per seed: {scale['start_steps']} supervised steps to the starting model ({spent['start']:.0f} s), "
        f"{scale['steps']} GRPO steps of {scale['prompts']} cues with {scale['rollouts']} rollouts each "
        f"({spent['locus']:.0f} s), learning rate {scale['learning_rate']:g}, "
        f"{3 * scale['training_pictures']} cues to train on; as many steps for the control "
        f"({spent['control']:.0f} s). {3 * scale['test_pictures']} test cues ({spent['locus-on-test']:.0f} s "
        "per model). Seconds are means over the seeds."
    )
    return [about, "", of_each, ""]


def _table(seeds: Sequence[dict[str, Look]]) -> list[str]:
    lines = ["| | " + " | ".join(METRICS.values()) + " |", "| --- |" + " ---: |" * len(METRICS)]
    for model, name in MODELS.items():
        cells = []
        for metric in METRICS:
            if model == EXACT and metric not in OF_EXACT:
                cells.append("-")
                continue
            means = [float(values(seed[model], metric).mean()) for seed in seeds]
            deviation = statistics.stdev(means) if len(means) > 1 else 0.0
            cells.append(f"{statistics.fmean(means):.3f} ± {deviation:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return [*lines, "", "Means over the seeds and their standard deviation.", ""]


def differences(seeds: Sequence[dict[str, Look]], claim: Claim) -> list[float]:
    """The trained model minus the other one, one value per seed."""
    return [
        float(values(seed["locus"], claim.metric).mean() - values(seed[claim.other], claim.metric).mean())
        for seed in seeds
    ]


def _verdicts(seeds: Sequence[dict[str, Look]]) -> list[str]:
    lines = ["| claim | difference per seed | mean, 95 % interval | verdict |", "| --- | --- | --- | --- |"]
    verdicts: Counter[str] = Counter()
    for claim in CLAIMS:
        each = differences(seeds, claim)
        verdict = decide(each, claim.direction, MARGIN)
        verdicts[verdict] += 1
        found = interval(each)
        told = ", ".join(f"{value:+.3f}" for value in each)
        mean = f"{found.mean:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        lines.append(f"| {claim.text} | {told} | {mean} | **{verdict}** |")
    total = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in (HELD, FAILED, NOISY))
    return [f"Of {verdicts.total()} claims: {total}.", "", *lines, ""]


def per_cue(seeds: dict[int, dict[str, Look]]) -> list[str]:
    """IoU after training minus that of every other model, seed by seed, with intervals over cues."""
    others = {name: text for name, text in MODELS.items() if name != "locus"}
    lines = [
        "| seed | after minus " + " | after minus ".join(others.values()) + " |",
        "| --- |" + " --- |" * len(others),
    ]
    for seed, found in seeds.items():
        gains = [
            difference_of(values(found["locus"], "greedy"), values(found[name], "greedy")) for name in others
        ]
        cells = [
            f"{gain.value:+.3f}" + ("" if gain.low is None else f" ({gain.low:+.3f} to {gain.high:+.3f})")
            for gain in gains
        ]
        lines.append(f"| {seed} | " + " | ".join(cells) + " |")
    return [*lines, "", "IoU of greedy answers; 95 % bootstrap intervals over the test cues.", ""]


def _training(curves: dict[str, list[list[float]]]) -> list[str]:
    lines = ["| rollouts while training | IoU, first 5 steps | IoU, last 5 steps |", "| --- | --- | --- |"]
    for arm, of_seeds in curves.items():
        ends = [
            ", ".join(f"{statistics.fmean(part):.3f}" for part in parts)
            for parts in ([each[:5] for each in of_seeds], [each[-5:] for each in of_seeds])
        ]
        lines.append(f"| {MODELS[arm]} | {ends[0]} | {ends[1]} |")
    return [*lines, "", "One value per seed; the control's IoU is that with the box it was paid for.", ""]


def _draw_curves(path: Path, curves: dict[str, list[list[float]]]) -> None:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Text as text, and the same figures give the same file.
    mpl.rcParams |= {"svg.hashsalt": "locus", "svg.fonttype": "none"}
    canvas = Figure(figsize=(6, 2.6), layout="constrained")
    axes = canvas.subplots(1, len(curves), sharey=True)
    for ax, (arm, of_seeds) in zip(axes, curves.items(), strict=True):
        for each in of_seeds:
            ax.plot(range(1, len(each) + 1), each, linewidth=0.9)
        ax.set_title(MODELS[arm].replace("`", ""), fontsize=7)
        ax.set_xlabel("step", fontsize=7)
        ax.tick_params(labelsize=6)
    axes[0].set_ylabel("IoU that is paid for", fontsize=7)
    canvas.savefig(path, format="svg", metadata={"Date": None})


def _draw_cues(path: Path, folder: Path, found: dict[str, Look]) -> None:
    from PIL import Image, ImageDraw, ImageOps

    lines = (folder / "data" / "test-cues.jsonl").read_text(encoding="utf-8").splitlines()
    places = range(0, len(lines), 3)[:PICTURES]
    width, height = 378, 252
    sheet = Image.new("RGB", (3 * width, -(-len(places) // 3) * height))
    for number, place in enumerate(places):
        row = json.loads(lines[place])
        with Image.open(folder / "data" / row["image"]) as picture:
            original = picture.convert("RGB")
        [target] = row["targets"]
        cue = original.crop(target)
        view = original.resize((width, height), Image.Resampling.BICUBIC)
        pen = ImageDraw.Draw(view)
        for box, size, colour in (
            (target, original.size, "white"),
            (numbers(found["start"]["answers"][place]), SHOWN_SIZE, "red"),
            (numbers(found["locus"]["answers"][place]), SHOWN_SIZE, "lime"),
        ):
            corners = np.array(box) * np.tile(np.array((width, height)) / size, 2)
            x, y = sorted(corners[::2]), sorted(corners[1::2])
            pen.rectangle((x[0], y[0], x[1], y[1]), outline=colour, width=2)
        cue.thumbnail((60, 60))
        view.paste(ImageOps.expand(cue, 2, "white"))
        sheet.paste(view, (number % 3 * width, number // 3 * height))
    sheet.save(path, quality=80)


def numbers(answer: str) -> list[int]:
    """The box of a well-formed answer; nowhere for any other."""
    found = re.search(r"\[(\d+), (\d+), (\d+), (\d+)\]", answer)
    return [0, 0, 0, 0] if found is None else [int(number) for number in found.groups()]


if __name__ == "__main__":
    write(*(Path(argument) for argument in sys.argv[1:]))
