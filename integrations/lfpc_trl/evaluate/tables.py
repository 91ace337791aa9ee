"""The tables of an evaluation, laid out like those of the paper: a row per model, a column per subset."""

import dataclasses
import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfpc_trl.evaluate.statistics import excludes_zero
from lfpc_trl.evaluate.summary import CHANGES, CONDITIONS, accuracy_of, well_formed_of

Figures = Mapping[str, Any]
"""What `summarise` returns."""

CONDITION_NAMES = {
    "predicted": "prediction",
    "noise": "random noise",
    "target": "ground truth",
    "elsewhere": "elsewhere",
    "no_picture": "no picture",
    "no_tool": "no tool",
}
"""How tables and pages call the conditions; the first three as the paper does."""

_CROP_COLUMNS = (  # figure, head
    ("cropped", "questions with a crop"),
    ("crops", "crops per question"),
    ("failed_calls", "failed calls"),
    ("overlap", "overlap"),
    ("iou", "IoU"),
    ("bbox_ratio", "crop, of the picture"),
    ("crop_tokens", "tokens per crop"),
    ("visual_tokens", "visual tokens in all"),
)
_KINDS = {
    **dict.fromkeys(("crops", "failed_calls", "turns"), "number"),
    **dict.fromkeys(("crop_tokens", "visual_tokens"), "count"),
    "seconds": "seconds",
}
"""How a figure is written; all others are shares, written in percent."""
_NOTHING = "n/a"
_SCALES = {"percent": 100.0}
_PATTERNS = {"percent": ".1f", "number": ".2f", "count": ",.0f", "seconds": ".2f"}


@dataclass(frozen=True)
class Table:
    """A table in plain text.

    Attributes:
        title: what it shows.
        note: how to read it.
        head: the columns.
        rows: cells; the first `labels` of each name the row.
        labels: how many those are.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1


LEGEND = (
    "`72.1 [68.0, 76.0]` is a mean over questions with its 95 % interval (bootstrap over questions). The "
    "head of a column says over how many questions; a cell with an n of its own is over so many of them. No "
    "interval stands where there are fewer than 10 questions or where all have the same value: resampling "
    "cannot tell how far off such a mean is. Differences are paired over the same questions; `*` marks "
    "those whose interval excludes 0. Of 20 differences that are 0 in truth about one is marked by chance, "
    "so read a single mark in a large table with care."
)
"""How to read all tables."""


# --- the tables --------------------------------------------------------------------------------------


def tables(models: Mapping[str, Figures]) -> list[Table]:
    """Every table for which there are figures.

    Args:
        models: name to figures, a row each, in this order; over the same questions.
    """
    budgets = sorted({group["budget"] for figures in models.values() for group in figures["groups"]})
    found = [_accuracy(models, budget) for budget in budgets]
    for budget in budgets:
        found += [_dependence(models, budget), _changes(models, budget), _section_9(models, budget)]
    found += [_accuracy_and_iou(models, budget) for budget in budgets]
    found += [_crops(models, budget) for budget in budgets]
    found += [_cost(models, budgets), _between_budgets(models), _form(models, budgets)]
    return _with_figures(found)


def change_tables(changes: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str) -> list[Table]:
    """What models differ in from one of them.

    Args:
        changes: model to groups whose figures are differences.
        baseline: the one that was subtracted.
    """
    models: dict[str, Figures] = {name: {"groups": groups} for name, groups in changes.items()}
    found = []
    for budget in sorted({group["budget"] for groups in changes.values() for group in groups}):
        places = _places(models, budget)
        head = ("model", "figure", *(place.head for place in places))
        names = {
            "accuracy": "accuracy",
            "accuracy_all_orders": "accuracy, all orders",
            **{accuracy_of(name): f"accuracy, {CONDITION_NAMES[name]}" for name in CONDITIONS[1:]},
            "predicted - noise": "accuracy lost under noise",
            "iou": "IoU",
            "overlap": "overlap",
            **{name: text for name, text in _CROP_COLUMNS if name not in ("iou", "overlap")},
            "seconds": "seconds per question",
        }
        rows = _rows(models, budget, places, names, signed=True)
        found.append(
            Table(
                f"Compared with {baseline}, {_at(budget)}",
                "Each model minus the other over the same questions. Accuracies, IoU, overlap and shares in "
                "points.",
                head,
                rows,
                labels=2,
            )
        )
    return _with_figures(found)


def _with_figures(found: Sequence[Table]) -> list[Table]:
    """Without rows that have no figure, and without tables that then have no row."""
    kept = [
        dataclasses.replace(
            table, rows=tuple(row for row in table.rows if {*row[table.labels :]} != {_NOTHING})
        )
        for table in found
    ]
    return [table for table in kept if table.rows]


def _accuracy(models: Mapping[str, Figures], budget: int) -> Table:
    places = _places(models, budget)
    names = {"accuracy": "accuracy", "accuracy_all_orders": "all orders"}
    rows = _rows(models, budget, places, names)
    return Table(
        f"Accuracy {_at(budget)}",
        "As table 2 of the paper: right answers in percent. “All orders” counts a question only if it is "
        "answered rightly under every order of its options.",
        ("model", "", *(place.head for place in places)),
        rows,
        labels=2,
    )


def _dependence(models: Mapping[str, Figures], budget: int) -> Table:
    places = _places(models, budget)
    names = {accuracy_of(name): CONDITION_NAMES[name] for name in CONDITIONS}
    rows = _rows(models, budget, places, names)
    several = any(row[1] != CONDITION_NAMES["predicted"] for row in rows)
    return Table(
        f"Crop dependence {_at(budget)}",
        "As table 1 of the paper: accuracy in percent with the crop as predicted, with noise and with the "
        "ground truth in its place. Not in the paper: the crop of a place that holds no target, no picture "
        "in the reply, and no tool at all.",
        ("model", "crop", *(place.head for place in places)),
        rows if several else (),
        labels=2,
    )


def _changes(models: Mapping[str, Figures], budget: int) -> Table:
    places = _places(models, budget)
    names = {
        f"{one} - {other}": f"{CONDITION_NAMES[one]} - {CONDITION_NAMES[other]}" for one, other in CHANGES
    }
    return Table(
        f"Accuracy lost when the crop is replaced, {_at(budget)}",
        "The first line of a model is table 5 of the paper. In points; a model that uses its crops loses "
        "much with noise, and gains with the ground truth where its own crops are poor.",
        ("model", "difference", *(place.head for place in places)),
        _rows(models, budget, places, names, signed=True),
        labels=2,
    )


def _section_9(models: Mapping[str, Figures], budget: int) -> Table:
    places = _places(models, budget)
    poor = {figures["settings"]["poor_overlap"] for figures in models.values() if "settings" in figures}
    below = f"{min(poor):g}" if poor else "the threshold"
    plain = {
        "gt_test.predicted": "GT test: prediction",
        "gt_test.target": "GT test: ground truth",
        "noise_test.predicted": "noise test: prediction",
        "noise_test.noise": "noise test: random noise",
        "noise_test.elsewhere": "noise test: elsewhere",
    }
    signed = {
        "gt_test.target - predicted": "GT test: ground truth - prediction",
        "noise_test.predicted - noise": "noise test: prediction - random noise",
        "noise_test.predicted - elsewhere": "noise test: prediction - elsewhere",
    }
    rows = []
    for name, figures in models.items():
        one = {name: figures}
        for test in ("gt_test", "noise_test"):
            of_test = {key: text for key, text in plain.items() if key.startswith(test)}
            of_change = {key: text for key, text in signed.items() if key.startswith(test)}
            of_changes = _rows(one, budget, places, of_change, signed=True)
            rows += [*_rows(one, budget, places, of_test), *of_changes] if of_changes else []
    return Table(
        f"The two harder tests, {_at(budget)}",
        f"As table 7 of the paper. GT test: the rows whose predicted crop covers less than {below} of the "
        "truth. Noise test: the rows that are answered wrongly without the tool and rightly with it, so "
        "the prediction is right by choice of the rows. Accuracy in percent, differences in points.",
        ("model", "test", *(place.head for place in places)),
        tuple(rows),
        labels=2,
    )


def _accuracy_and_iou(models: Mapping[str, Figures], budget: int) -> Table:
    places = _places(models, budget)
    rows = [
        (
            name,
            *(
                _cell(place.figures(figures, budget), figure, place.questions)
                for place in places
                for figure in ("accuracy", "iou")
            ),
        )
        for name, figures in models.items()
    ]
    measured = any(cell != _NOTHING for row in rows for cell in row[2::2])
    return Table(
        f"Accuracy and IoU {_at(budget)}",
        "As table 3 of the paper, in percent. IoU is over the questions with a crop and ground truth.",
        ("model", *(f"{place.head}: {text}" for place in places for text in ("Acc", "IoU"))),
        tuple(rows) if measured else (),
    )


def _crops(models: Mapping[str, Figures], budget: int) -> Table:
    rows = []
    for name, figures in models.items():
        for place in _places(models, budget):
            found = place.figures(figures, budget)
            cells = [_cell(found, figure, place.questions) for figure, _ in _CROP_COLUMNS]
            rows.append((name, place.head, *cells))
    return Table(
        f"Crops and what they cost, {_at(budget)}",
        "Not in the paper. Shares, overlap, IoU and size in percent; overlap is the covered share of the "
        "smallest region. The last column counts the full image and all crops of a question.",
        ("model", "questions", *(head for _, head in _CROP_COLUMNS)),
        tuple(rows),
        labels=2,
    )


def _cost(models: Mapping[str, Figures], budgets: Sequence[int]) -> Table:
    everywhere = {budget: _places(models, budget, overall=True) for budget in budgets}
    heads = list(dict.fromkeys(place.head for places in everywhere.values() for place in places))
    rows = []
    for name, figures in models.items():
        for budget, places in everywhere.items():
            by_head = {place.head: place for place in places}
            cells = [
                _cell(by_head[head].figures(figures, budget), figure, by_head[head].questions)
                if head in by_head
                else _NOTHING
                for head in heads
                for figure in ("accuracy", "seconds")
            ]
            rows.append((name, f"{budget:,}", *cells))
    return Table(
        "Accuracy and seconds per question",
        "As table 6 of the paper. Seconds compare models only where the machine, the engine and the batch "
        "size are the same.",
        ("model", "budget", *(f"{head}: {text}" for head in heads for text in ("Acc", "Time (s)"))),
        tuple(rows),
        labels=2,
    )


def _between_budgets(models: Mapping[str, Figures]) -> Table:
    steps = list(
        dict.fromkeys(
            (each["budget"], each["against"]) for figures in models.values() for each in figures["budgets"]
        )
    )
    found: dict[tuple[str, int], dict[str, str]] = {}
    for name, figures in models.items():
        for each in figures["budgets"]:
            head = _head(each["benchmark"], each["category"], each["questions"])
            cell = _written(each["accuracy"], "percent", each["questions"], signed=True)
            found.setdefault((name, each["budget"]), {})[head] = cell
    heads = list(dict.fromkeys(head for cells in found.values() for head in cells))
    against = dict(steps)
    return Table(
        "Accuracy gained with a larger budget",
        "Accuracy at the larger budget minus that at the smaller, in points. What crops bring back of the "
        "detail that the small full image lacks makes this small.",
        ("model", "budgets", *heads),
        tuple(
            (name, f"{budget:,} - {against[budget]:,}", *(cells.get(head, _NOTHING) for head in heads))
            for (name, budget), cells in found.items()
        ),
        labels=2,
    )


def _form(models: Mapping[str, Figures], budgets: Sequence[int]) -> Table:
    names = {well_formed_of(name): CONDITION_NAMES[name] for name in CONDITIONS}
    rows = []
    for name, figures in models.items():
        for budget in budgets:
            for place in _places(models, budget, overall=True):
                found = place.figures(figures, budget)
                cells = [_cell(found, figure, place.questions) for figure in names]
                rows.append((name, f"{budget:,}", place.head, *cells))
    return Table(
        "Well-formed rollouts",
        "In percent, by what stands in place of the crop. Where noise breaks the form, a low accuracy under "
        "noise says little about looking.",
        ("model", "budget", "questions", *names.values()),
        tuple(rows),
        labels=3,
    )


# --- places and cells --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A column: a benchmark, or a category of it."""

    benchmark: str
    category: str | None
    questions: int

    @property
    def head(self) -> str:
        return _head(self.benchmark, self.category, self.questions)

    def figures(self, of: Figures, budget: int) -> Mapping[str, Any]:
        """The figures of a model here; empty where it has none."""
        wanted = (self.benchmark, budget, self.category)
        for group in of["groups"]:
            if (group["benchmark"], group["budget"], group["category"]) == wanted:
                found: Mapping[str, Any] = group["figures"]
                return found
        return {}


def _head(benchmark: str, category: str | None, questions: int) -> str:
    return f"{benchmark}{f' {category}' if category is not None else ''} (n={questions})"


def _places(models: Mapping[str, Figures], budget: int, *, overall: bool = False) -> list[_Place]:
    """The columns: the categories of each benchmark, then all of it, as in the paper."""
    by_benchmark: dict[str, dict[str | None, _Place]] = {}
    for figures in models.values():
        for group in figures["groups"]:
            if group["budget"] == budget and (group["category"] is None or not overall):
                place = _Place(group["benchmark"], group["category"], group["questions"])
                by_benchmark.setdefault(place.benchmark, {}).setdefault(place.category, place)
    return [
        place
        for places in by_benchmark.values()
        for place in sorted(places.values(), key=lambda place: place.category is None)
    ]


def _rows(
    models: Mapping[str, Figures],
    budget: int,
    places: Sequence[_Place],
    names: Mapping[str, str],
    *,
    signed: bool = False,
) -> tuple[tuple[str, ...], ...]:
    """A row per model and figure; figures that nobody has are left out."""

    def lines() -> Iterator[tuple[str, ...]]:
        for model, figures in models.items():
            here = [place.figures(figures, budget) for place in places]
            for figure, text in names.items():
                if any(found and found[figure]["n"] for found in here):
                    cells = (
                        _cell(found, figure, place.questions, signed=signed)
                        for found, place in zip(here, places, strict=True)
                    )
                    yield (model, text, *cells)

    return tuple(lines())


def _cell(found: Mapping[str, Any], name: str, questions: int, *, signed: bool = False) -> str:
    if not found:
        return _NOTHING
    return _written(found[name], _KINDS.get(name, "percent"), questions, signed=signed)


def _written(figure: Mapping[str, Any], kind: str, questions: int, *, signed: bool = False) -> str:
    """A figure as a cell: `72.1 [68.0, 76.0]`, with its own n where it is over fewer questions."""
    if not figure["n"]:
        return _NOTHING
    pattern, scale = _PATTERNS[kind], _SCALES.get(kind, 1.0)
    sign = "+z" if signed else "z"  # z: no minus before a zero
    text = f"{scale * figure['value']:{sign}{pattern}}"
    if figure["low"] is not None:
        text += f" [{scale * figure['low']:{sign}{pattern}}, {scale * figure['high']:{sign}{pattern}}]"
        text += "*" if signed and excludes_zero(figure["low"], figure["high"]) else ""
    return text if figure["n"] == questions else f"{text} (n={figure['n']})"


def _at(budget: int) -> str:
    return f"at {budget:,} visual tokens"


# --- Markdown ----------------------------------------------------------------------------------------


def to_markdown(found: Sequence[Table], *, title: str, intro: Sequence[str] = ()) -> str:
    """Tables as one Markdown text.

    Args:
        found: the tables.
        title: the heading.
        intro: paragraphs before the legend.
    """
    parts = [f"# {_escaped(title)}", *map(_escaped, intro), LEGEND]
    for table in found:
        lines = [
            _line(table.head),
            "|" + " --- |" * table.labels + " ---: |" * (len(table.head) - table.labels),
            *map(_line, table.rows),
        ]
        parts += [f"## {_escaped(table.title)}", _escaped(table.note), "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """Names come from files: no part of them becomes a column, a line, emphasis or HTML."""
    text = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\|*`[]" if not _is_number(text) else "*":
        text = text.replace(sign, "\\" + sign)
    return text


def _is_number(text: str) -> bool:
    return not set(text) - set("+-0123456789.,[]*()n= ")
