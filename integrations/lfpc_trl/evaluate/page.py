"""The page of an evaluation, or of several side by side: one HTML file that needs nothing beside itself.

Its only script is `html/templates/evaluation.js`; the page's own policy names it by its hash and lets no
other run. What models and data files wrote reaches it as JSON and is put in as text.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lfpc_trl.evaluate.examples import as_script_data, filters
from lfpc_trl.evaluate.statistics import excludes_zero
from lfpc_trl.evaluate.summary import CONDITIONS, Columns, accuracy_of
from lfpc_trl.evaluate.tables import CONDITION_NAMES, LEGEND, Figures, Table
from lfpc_trl.html.standalone import COLOURS, draw, template

_SERIES = ("stage1", "stage2", "control", "target", "warm")  # variables of the style, in the order of use
_BINS = 20

Story = list[tuple[str, list[str]]]
"""Headings with their sentences."""


def render(
    *,
    title: str,
    lede: str,
    story: Story,
    models: Mapping[str, Figures],
    columns: Mapping[str, Columns],
    tables: Sequence[Table],
    settings: Mapping[str, Any],
    examples: Mapping[str, Any] | None = None,
    command: str = "",
) -> str:
    """The page as HTML.

    Args:
        title: its heading.
        lede: what was evaluated, in a sentence.
        story: the figures in plain sentences.
        models: name to figures; each has a colour.
        columns: name to the rollouts behind the figures, for the histograms.
        tables: all tables.
        settings: facts for the end of the page.
        examples: what `examples_of` returns; None shows no rollouts.
        command: the command that shows all rollouts.
    """
    script = _script() if examples is not None else ""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    scripts = f"'sha256-{digest}'" if script else "'none'"
    return template("evaluation.html.jinja").render(
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {scripts}",
        title=title,
        lede=lede,
        story=story,
        blocks=_blocks(models, columns),
        tables=tables,
        table_legend=LEGEND.replace("`", ""),
        settings={name: _plain(value) for name, value in settings.items()},
        examples=examples,
        filters={} if examples is None else filters(examples["rollouts"]),
        condition_names=CONDITION_NAMES,
        command=command,
        # Nothing in either ends the element it stands in: tests look for it.
        data=Markup("" if examples is None else as_script_data(examples)),
        script=Markup(script),
    )


def _script() -> str:
    """The script of the page after what it shares with the local pages, which are modules and export it."""
    package = files("lfpc_trl.html")
    shared = (package / "static" / "dom.js").read_text(encoding="utf-8")
    own = (package / "templates" / "evaluation.js").read_text(encoding="utf-8")
    return re.sub(r"^export ", "", shared, flags=re.MULTILINE) + own


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


# --- sentences ---------------------------------------------------------------------------------------


def story_of(figures: Figures) -> Story:
    """What the figures of one model say: a heading per benchmark and budget."""
    told = []
    for group in figures["groups"]:
        if group["category"] is None:
            heading = f"{group['benchmark']} at {group['budget']:,} visual tokens"
            told.append((heading, _sentences(group["figures"])))
    return told


def _sentences(found: Mapping[str, Any]) -> list[str]:
    own = found["accuracy"]
    said = [f"Answers {_percent(own)} of {own['n']} questions rightly{_between(own)}."]
    if found["accuracy_all_orders"]["n"]:
        said.append(f"Under every order of the options: {_percent(found['accuracy_all_orders'])}.")
    noise = found["predicted - noise"]
    if noise["n"]:
        verdict = _verdict(
            noise,
            "its answers use what the crops show",
            "it answers better without its crops",
            "it is not shown that it looks at its crops",
        )
        said.append(f"Noise in place of its crops costs {_points(noise)}: {verdict}.")
    target = found["target - predicted"]
    if target["n"]:
        verdict = _verdict(
            target,
            "better crops would help it",
            "its own crops serve it better",
            "it is not shown that better crops would help",
        )
        said.append(f"The true region in their place gains {_points(target)}: {verdict}.")
    if found["cropped"]["n"]:
        said.append(f"It crops in {_percent(found['cropped'])} of the questions.")
    if found["overlap"]["n"]:
        said.append(
            f"A crop holds {_percent(found['overlap'])} of the smallest region that suffices, with an IoU of "
            f"{found['iou']['value']:.2f} (over {found['iou']['n']} questions)."
        )
    if found["crop_tokens"]["n"]:
        said.append(
            f"A crop takes {found['crop_tokens']['value']:,.0f} visual tokens; a question takes "
            f"{found['visual_tokens']['value']:,.0f} in all."
        )
    return said


def comparison_story(changes: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str) -> Story:
    """What models differ in from one of them: a heading per benchmark and budget."""
    told: dict[str, list[str]] = {}
    for name, groups in changes.items():
        for group in groups:
            if group["category"] is not None:
                continue
            found = group["figures"]
            said = told.setdefault(f"{group['benchmark']} at {group['budget']:,} visual tokens", [])
            change = found["accuracy"]
            if not change["n"]:
                continue
            verdict = _verdict(
                change,
                f"better than {baseline}",
                f"worse than {baseline}",
                f"no difference to {baseline} is shown",
            )
            said.append(
                f"{name}: accuracy {_points(change, signed=True)} over {change['n']} questions: {verdict}."
            )
            lost = found["predicted - noise"]
            if lost["n"]:
                verdict = _verdict(
                    lost,
                    "its answers hang more on its crops",
                    "its answers hang less on its crops",
                    "no difference in how much its answers hang on its crops is shown",
                )
                said.append(
                    f"{name}: what noise in place of the crops costs, {_points(lost, signed=True)}: "
                    f"{verdict}."
                )
    return list(told.items())


def _verdict(figure: Mapping[str, Any], above: str, below: str, neither: str) -> str:
    if figure["low"] is None:
        return "no interval can be given, so nothing follows"
    if not excludes_zero(figure["low"], figure["high"]):
        return neither
    return above if figure["low"] > 0 else below


def _percent(figure: Mapping[str, Any]) -> str:
    return "n/a" if figure["value"] is None else f"{100 * figure['value']:.1f} %"


def _between(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return ""
    return f" (95 % interval {100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


def _points(figure: Mapping[str, Any], *, signed: bool = False) -> str:
    return f"{100 * figure['value']:{'+' if signed else ''}.1f} points{_between(figure)}"


# --- drawings ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """A drawing.

    Attributes:
        title: what it is of.
        said: what it shows, in words.
        svg: the drawing.
        caption: whether the words stand above it too, or only for those who cannot see it.
    """

    title: str
    said: str
    svg: Markup
    caption: bool = True


@dataclass(frozen=True)
class Block:
    """Drawings that belong together.

    Attributes:
        heading: what they show.
        remark: how to read them.
        panels: the drawings.
        legend: names and variables of the style; empty where nothing needs telling apart.
    """

    heading: str
    remark: str
    panels: list[Panel]
    legend: list[tuple[str, str]]


def _blocks(models: Mapping[str, Figures], columns: Mapping[str, Columns]) -> list[Block]:
    budgets = sorted({budget for each in columns.values() for budget in each["budget"]})
    if len(models) == 1:
        (only,) = columns.values()
        series = {f"{budget:,} visual tokens": (only, budget) for budget in budgets}
        where = "all budgets"
    else:
        series = {name: (each, budgets[0]) for name, each in columns.items()}
        where = f"{budgets[0]:,} visual tokens"
    intervals = (
        "A model that reads its crops loses with noise and gains with the ground truth. Lines are 95 % "
        "intervals; a point without a line is over too few questions, or all have the same value."
    )
    crops = (
        f"Rollouts with a delivered crop, as the model is, {where}. Overlap is the covered share of the "
        "smallest region."
    )
    flat = "The flatter, the more the crops bring back of what a coarse full image lacks."
    by_model = _legend(models)
    blocks = [
        Block("Accuracy by what stands in place of the crop", intervals, _by_condition(models), by_model),
        Block("Accuracy against the budget of the full image", flat, _by_budget(models), by_model),
        Block("Crops", crops, _histograms(series), _legend(series)),
    ]
    return [block for block in blocks if block.panels]


def _legend(names: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _colour(number)) for number, name in enumerate(names)] if len(names) > 1 else []


def _colour(number: int) -> str:
    return _SERIES[number % len(_SERIES)]


def _named(name: str, among: Mapping[str, Any]) -> str:
    return f"{name}: " if len(among) > 1 else ""


def _overall(figures: Figures) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {
        (group["benchmark"], group["budget"]): group["figures"]
        for group in figures["groups"]
        if group["category"] is None
    }


def _mark(axes: Axes, figure: Mapping[str, Any], place: float, colour: str, *, lying: bool) -> None:
    """A figure as a point, with a line where it has an interval: lying along x, or standing."""
    values, ends = [figure["value"]], [figure["low"], figure["high"]]
    points = (values, [place]) if lying else ([place], values)
    axes.plot(*points, "o", color=colour, markersize=4.5, clip_on=False)  # whole at 0 % and at 100 %
    if figure["low"] is not None:
        there = [place, place]
        axes.plot(*((ends, there) if lying else (there, ends)), color=colour, linewidth=1.8)


def _by_condition(models: Mapping[str, Figures]) -> list[Panel]:
    panels = []
    everything = {name: _overall(figures) for name, figures in models.items()}
    for number, place in enumerate(dict.fromkeys(key for each in everything.values() for key in each)):
        found = {name: each[place] for name, each in everything.items() if place in each}
        names = [name for name in CONDITIONS if any(each[accuracy_of(name)]["n"] for each in found.values())]
        step = 0.7 / len(models)

        def plot(axes: Axes, found: Any = found, names: Any = names, step: float = step) -> None:
            axes.grid(visible=False)
            axes.grid(axis="x", color=COLOURS["line"], linewidth=0.8)
            for order, model in enumerate(models):
                for row, condition in enumerate(names):
                    figure = found[model][accuracy_of(condition)] if model in found else {"n": 0}
                    if figure["n"]:
                        height = row + step * (order - (len(models) - 1) / 2)
                        colour = COLOURS[_colour(order)]
                        _mark(axes, figure, height, colour, lying=True)
            axes.set_xlim(0, 1)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_yticks(range(len(names)), [CONDITION_NAMES[name] for name in names])

        said = "; ".join(
            _named(model, models)
            + ", ".join(f"{CONDITION_NAMES[n]} {_percent(each[accuracy_of(n)])}" for n in names)
            for model, each in found.items()
        )
        size = (3.6, 0.7 + len(names) * max(0.24, 0.13 * len(models)))
        title = f"{place[0]}, {place[1]:,} visual tokens"
        panels.append(Panel(title, said, draw(plot, f"condition-{number}", size=size), caption=False))
    return panels


def _by_budget(models: Mapping[str, Figures]) -> list[Panel]:
    panels = []
    everything = {name: _overall(figures) for name, figures in models.items()}
    for number, benchmark in enumerate(
        dict.fromkeys(benchmark for each in everything.values() for benchmark, _ in each)
    ):
        lines = {
            name: [
                (budget, figures["accuracy"])
                for (theirs, budget), figures in each.items()
                if theirs == benchmark and figures["accuracy"]["n"]
            ]
            for name, each in everything.items()
        }
        budgets = sorted({budget for line in lines.values() for budget, _ in line})
        if len(budgets) < 2:
            continue

        def plot(axes: Axes, lines: Any = lines, budgets: Any = budgets) -> None:
            for order, line in enumerate(lines.values()):
                colour = COLOURS[_colour(order)]
                x = [budget * 1.03**order for budget, _ in line]  # beside each other, not on each other
                axes.plot(x, [figure["value"] for _, figure in line], color=colour, linewidth=1.6, alpha=0.6)
                for place, (_, figure) in zip(x, line, strict=True):
                    _mark(axes, figure, place, colour, lying=False)
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.set_xticks(budgets, [f"{budget:,}" for budget in budgets])
            axes.set_xlim(budgets[0] / 1.3, budgets[-1] * 1.3)
            axes.set_ylim(0, 1)
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_xlabel("visual tokens of the full image", loc="right", labelpad=1)

        said = "; ".join(
            _named(name, lines) + ", ".join(f"{_percent(figure)} at {budget:,}" for budget, figure in line)
            for name, line in lines.items()
        )
        panels.append(Panel(benchmark, said, draw(plot, f"budget-{number}")))
    return panels


_HISTOGRAMS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("overlap", "overlap", "{:.2f}".format),
    ("iou", "IoU", "{:.2f}".format),
    ("crop_tokens", "visual tokens per crop", "{:,.0f}".format),
)


def _histograms(series: Mapping[str, tuple[Columns, int]]) -> list[Panel]:
    panels = []
    benchmarks = dict.fromkeys(name for columns, _ in series.values() for name in columns["benchmark"])
    for number, benchmark in enumerate(benchmarks):
        for measure, title, written in _HISTOGRAMS:
            values = {
                name: _own_values(columns, measure, str(benchmark), budget)
                for name, (columns, budget) in series.items()
            }
            highest = max((float(each.max()) for each in values.values() if len(each)), default=0.0)
            if not any(map(len, values.values())):
                continue
            bins = np.linspace(0.0, 1.0 if measure != "crop_tokens" else max(highest, 1.0), _BINS + 1)

            def plot(axes: Axes, values: Any = values, bins: Any = bins) -> None:
                for order, each in enumerate(values.values()):
                    if len(each):
                        shares = np.histogram(each, bins)[0] / len(each)
                        colour = COLOURS[_colour(order)]
                        if len(values) < 3:
                            axes.stairs(shares, bins, color=colour, fill=True, alpha=0.2)
                        axes.stairs(shares, bins, color=colour, linewidth=1.6)
                axes.set_ylim(bottom=0)
                axes.yaxis.set_major_locator(MaxNLocator(4))
                axes.yaxis.set_major_formatter(PercentFormatter(1.0))

            said = " · ".join(
                f"{_named(name, values)}median {written(float(np.median(each)))}, n={len(each)}"
                for name, each in values.items()
                if len(each)
            )
            panels.append(Panel(f"{benchmark}: {title}", said, draw(plot, f"{measure}-{number}")))
    return panels


def _own_values(columns: Columns, measure: str, benchmark: str, budget: int) -> Any:
    """A measure of the rollouts as the model is, where it has one."""
    names = ("benchmark", "budget", "condition", measure)
    return np.array(
        [
            value
            for theirs, tokens, condition, value in zip(*(columns[name] for name in names), strict=True)
            if theirs == benchmark and tokens == budget and condition == "predicted" and value is not None
        ],
        dtype=np.float64,
    )
