"""The page of an evaluation or a comparison: one self-contained HTML file.

Its only script is `html/templates/evaluation.js`; the page's content security policy allows it by its hash
and blocks all others. Text from models and data files is passed to it as JSON and inserted as text.
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

_SERIES = ("stage1", "stage2", "control", "target", "warm")  # color variables of the style sheet, in order
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
    """Render the page as HTML.

    Args:
        title: heading of the page.
        lede: one sentence on what was evaluated.
        story: the main figures in plain sentences.
        models: model name to figures; each model gets a color.
        columns: model name to the rollouts behind the figures, for the histograms.
        tables: all tables.
        settings: settings to list at the end of the page.
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
        # Neither can end the element it is in; tests check this.
        data=Markup("" if examples is None else as_script_data(examples)),
        script=Markup(script),
    )


def _script() -> str:
    """Return the script of the page, with the code that it shares with the local pages' modules prepended."""
    package = files("lfpc_trl.html")
    shared = (package / "static" / "dom.js").read_text(encoding="utf-8")
    own = (package / "templates" / "evaluation.js").read_text(encoding="utf-8")
    return re.sub(r"^export ", "", shared, flags=re.MULTILINE) + own


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


# --- sentences ---------------------------------------------------------------------------------------


def story_of(figures: Figures) -> Story:
    """Summarize the figures of one model in sentences, under a heading per benchmark and budget."""
    story = []
    for group in figures["groups"]:
        if group["category"] is None:
            heading = f"{group['benchmark']} at {group['budget']:,} visual tokens"
            story.append((heading, _sentences(group["figures"])))
    return story


def _sentences(figures: Mapping[str, Any]) -> list[str]:
    accuracy = figures["accuracy"]
    sentences = [f"Answers {_percent(accuracy)} of {accuracy['n']} questions correctly{_interval(accuracy)}."]
    if figures["accuracy_all_orders"]["n"]:
        sentences.append(
            f"Correct under every order of the options: {_percent(figures['accuracy_all_orders'])}."
        )
    noise = figures["predicted - noise"]
    if noise["n"]:
        verdict = _verdict(
            noise,
            "its answers use the content of the crops",
            "it answers better with noise than with its crops",
            "this does not show that it uses its crops",
        )
        sentences.append(f"Replacing its crops with noise costs {_points(noise)}: {verdict}.")
    target = figures["target - predicted"]
    if target["n"]:
        verdict = _verdict(
            target,
            "better crops would help it",
            "its own crops work better",
            "this does not show that better crops would help",
        )
        sentences.append(f"Replacing its crops with the true region gains {_points(target)}: {verdict}.")
    if figures["cropped"]["n"]:
        sentences.append(f"It crops in {_percent(figures['cropped'])} of the questions.")
    if figures["overlap"]["n"]:
        sentences.append(
            f"A crop covers {_percent(figures['overlap'])} of the smallest sufficient region, with an IoU of "
            f"{figures['iou']['value']:.2f} (over {figures['iou']['n']} questions)."
        )
    if figures["crop_tokens"]["n"]:
        sentences.append(
            f"A crop takes {figures['crop_tokens']['value']:,.0f} visual tokens; a question takes "
            f"{figures['visual_tokens']['value']:,.0f} in all."
        )
    return sentences


def comparison_story(changes: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str) -> Story:
    """Summarize how models differ from the baseline, under a heading per benchmark and budget."""
    story: dict[str, list[str]] = {}
    for name, groups in changes.items():
        for group in groups:
            if group["category"] is not None:
                continue
            figures = group["figures"]
            heading = f"{group['benchmark']} at {group['budget']:,} visual tokens"
            sentences = story.setdefault(heading, [])
            change = figures["accuracy"]
            if not change["n"]:
                continue
            verdict = _verdict(
                change,
                f"better than {baseline}",
                f"worse than {baseline}",
                f"no significant difference from {baseline}",
            )
            sentences.append(
                f"{name}: accuracy {_points(change, signed=True)} over {change['n']} questions: {verdict}."
            )
            lost = figures["predicted - noise"]
            if lost["n"]:
                verdict = _verdict(
                    lost,
                    "its answers depend more on its crops",
                    "its answers depend less on its crops",
                    "no significant difference in how much its answers depend on its crops",
                )
                sentences.append(
                    f"{name}: accuracy lost when noise replaces the crops, {_points(lost, signed=True)}: "
                    f"{verdict}."
                )
    return list(story.items())


def _verdict(figure: Mapping[str, Any], above: str, below: str, neither: str) -> str:
    if figure["low"] is None:
        return "too few questions or equal values, so no interval and no conclusion"
    if not excludes_zero(figure["low"], figure["high"]):
        return neither
    return above if figure["low"] > 0 else below


def _percent(figure: Mapping[str, Any]) -> str:
    return "n/a" if figure["value"] is None else f"{100 * figure['value']:.1f} %"


def _interval(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return ""
    return f" (95 % interval {100 * figure['low']:.1f} to {100 * figure['high']:.1f})"


def _points(figure: Mapping[str, Any], *, signed: bool = False) -> str:
    return f"{100 * figure['value']:{'+' if signed else ''}.1f} points{_interval(figure)}"


# --- plots -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Panel:
    """A plot.

    Attributes:
        title: title of the plot.
        said: what it shows, in words.
        svg: the plot.
        caption: whether the words are also shown as a caption, or only given to screen readers.
    """

    title: str
    said: str
    svg: Markup
    caption: bool = True


@dataclass(frozen=True)
class Block:
    """A group of plots under one heading.

    Attributes:
        heading: what they show.
        remark: how to read them.
        panels: the plots.
        legend: names and color variables; empty if there is only one series.
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
        scope = "all budgets"
    else:
        series = {name: (each, budgets[0]) for name, each in columns.items()}
        scope = f"{budgets[0]:,} visual tokens"
    intervals = (
        "A model that uses its crops gets worse with noise and better with the ground truth. Lines are 95 % "
        "intervals; a point without a line has too few questions, or all have the same value."
    )
    crops = (
        f"Rollouts of the unchanged model with a delivered crop, {scope}. Overlap is the covered share of "
        "the smallest region."
    )
    flat = "The flatter the curve, the more of the detail missing from a coarse full image the crops recover."
    by_model = _legend(models)
    blocks = [
        Block("Accuracy by what replaces the crop", intervals, _by_condition(models), by_model),
        Block("Accuracy by budget of the full image", flat, _by_budget(models), by_model),
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


def _mark(axes: Axes, figure: Mapping[str, Any], position: float, colour: str, *, horizontal: bool) -> None:
    """Plot a figure as a point, with its interval, if any, as a horizontal or vertical line."""
    values, ends = [figure["value"]], [figure["low"], figure["high"]]
    points = (values, [position]) if horizontal else ([position], values)
    axes.plot(*points, "o", color=colour, markersize=4.5, clip_on=False)  # not cut off at 0 % and 100 %
    if figure["low"] is not None:
        twice = [position, position]
        axes.plot(*((ends, twice) if horizontal else (twice, ends)), color=colour, linewidth=1.8)


def _by_condition(models: Mapping[str, Figures]) -> list[Panel]:
    panels = []
    overall = {name: _overall(figures) for name, figures in models.items()}
    for number, key in enumerate(dict.fromkeys(key for each in overall.values() for key in each)):
        by_model = {name: each[key] for name, each in overall.items() if key in each}
        names = [
            name for name in CONDITIONS if any(each[accuracy_of(name)]["n"] for each in by_model.values())
        ]
        step = 0.7 / len(models)

        def plot(axes: Axes, by_model: Any = by_model, names: Any = names, step: float = step) -> None:
            axes.grid(visible=False)
            axes.grid(axis="x", color=COLOURS["line"], linewidth=0.8)
            for order, model in enumerate(models):
                for row, condition in enumerate(names):
                    figure = by_model[model][accuracy_of(condition)] if model in by_model else {"n": 0}
                    if figure["n"]:
                        height = row + step * (order - (len(models) - 1) / 2)
                        colour = COLOURS[_colour(order)]
                        _mark(axes, figure, height, colour, horizontal=True)
            axes.set_xlim(0, 1)
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_yticks(range(len(names)), [CONDITION_NAMES[name] for name in names])

        said = "; ".join(
            _named(model, models)
            + ", ".join(f"{CONDITION_NAMES[n]} {_percent(each[accuracy_of(n)])}" for n in names)
            for model, each in by_model.items()
        )
        size = (3.6, 0.7 + len(names) * max(0.24, 0.13 * len(models)))
        title = f"{key[0]}, {key[1]:,} visual tokens"
        panels.append(Panel(title, said, draw(plot, f"condition-{number}", size=size), caption=False))
    return panels


def _by_budget(models: Mapping[str, Figures]) -> list[Panel]:
    panels = []
    overall = {name: _overall(figures) for name, figures in models.items()}
    for number, benchmark in enumerate(
        dict.fromkeys(benchmark for each in overall.values() for benchmark, _ in each)
    ):
        lines = {
            name: [
                (budget, figures["accuracy"])
                for (name_of_benchmark, budget), figures in each.items()
                if name_of_benchmark == benchmark and figures["accuracy"]["n"]
            ]
            for name, each in overall.items()
        }
        budgets = sorted({budget for line in lines.values() for budget, _ in line})
        if len(budgets) < 2:
            continue

        def plot(axes: Axes, lines: Any = lines, budgets: Any = budgets) -> None:
            for order, line in enumerate(lines.values()):
                colour = COLOURS[_colour(order)]
                x = [budget * 1.03**order for budget, _ in line]  # shifted, so that models do not overlap
                axes.plot(x, [figure["value"] for _, figure in line], color=colour, linewidth=1.6, alpha=0.6)
                for position, (_, figure) in zip(x, line, strict=True):
                    _mark(axes, figure, position, colour, horizontal=False)
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
        for measure, title, formatted in _HISTOGRAMS:
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
                f"{_named(name, values)}median {formatted(float(np.median(each)))}, n={len(each)}"
                for name, each in values.items()
                if len(each)
            )
            panels.append(Panel(f"{benchmark}: {title}", said, draw(plot, f"{measure}-{number}")))
    return panels


def _own_values(columns: Columns, measure: str, benchmark: str, budget: int) -> Any:
    """Return a measure of the `predicted` rollouts, without missing values."""
    names = ("benchmark", "budget", "condition", measure)
    return np.array(
        [
            value
            for its_benchmark, its_budget, condition, value in zip(
                *(columns[name] for name in names), strict=True
            )
            if its_benchmark == benchmark
            and its_budget == budget
            and condition == "predicted"
            and value is not None
        ],
        dtype=np.float64,
    )
