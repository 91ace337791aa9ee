"""The tables of an evaluation, in the layout of the paper: a row per model, a column per subset."""

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
"""Names of the conditions in tables and pages; the first three are the paper's."""

_CROP_COLUMNS = (  # (figure, header)
    ("cropped", "questions with a crop"),
    ("crops", "crops per question"),
    ("failed_calls", "failed calls"),
    ("overlap", "overlap"),
    ("iou", "IoU"),
    ("bbox_ratio", "crop, share of picture"),
    ("crop_tokens", "tokens per crop"),
    ("visual_tokens", "visual tokens in all"),
)
_KINDS = {
    **dict.fromkeys(("crops", "failed_calls", "turns"), "number"),
    **dict.fromkeys(("crop_tokens", "visual_tokens"), "count"),
    "seconds": "seconds",
}
"""Number format of each figure; all others are shares, written in percent."""
_NOTHING = "n/a"
_SCALES = {"percent": 100.0}
_PATTERNS = {"percent": ".1f", "number": ".2f", "count": ",.0f", "seconds": ".2f"}


@dataclass(frozen=True)
class Table:
    """A table in plain text.

    Attributes:
        title: what it shows.
        note: how to read it.
        head: column headers.
        rows: cells; the first `labels` cells of each row are its labels.
        labels: number of label columns.
    """

    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 1


LEGEND = (
    "`72.1 [68.0, 76.0]` is a mean over questions with its 95 % interval (bootstrap over questions). The "
    "column header gives the number of questions; a cell over fewer of them has its own n. There is no "
    "interval for fewer than 10 questions or if all have the same value: resampling cannot estimate the "
    "error of such a mean. Differences are paired over the same questions; `*` marks those whose interval "
    "excludes 0. Of 20 true differences of 0, about one is marked by chance, so read a single mark in a "
    "large table with care."
)
"""How to read all tables."""


# --- the tables --------------------------------------------------------------------------------------


def tables(models: Mapping[str, Figures]) -> list[Table]:
    """Return every table that has figures.

    Args:
        models: model name to figures over the same questions; a row per model, in this order.
    """
    budgets = sorted({group["budget"] for figures in models.values() for group in figures["groups"]})
    candidates = [_accuracy(models, budget) for budget in budgets]
    for budget in budgets:
        candidates += [_dependence(models, budget), _changes(models, budget), _section_9(models, budget)]
    candidates += [_accuracy_and_iou(models, budget) for budget in budgets]
    candidates += [_crops(models, budget) for budget in budgets]
    candidates += [_cost(models, budgets), _between_budgets(models), _form(models, budgets)]
    return _drop_empty(candidates)


def change_tables(changes: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str) -> list[Table]:
    """Return the tables of differences between models and a baseline.

    Args:
        changes: model name to groups whose figures are differences.
        baseline: name of the model that was subtracted.
    """
    models: dict[str, Figures] = {name: {"groups": groups} for name, groups in changes.items()}
    candidates = []
    for budget in sorted({group["budget"] for groups in changes.values() for group in groups}):
        columns = _columns(models, budget)
        head = ("model", "figure", *(column.head for column in columns))
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
        rows = _rows(models, budget, columns, names, signed=True)
        candidates.append(
            Table(
                f"Compared with {baseline}, {_at(budget)}",
                f"Each model minus {baseline} over the same questions. Accuracies, IoU, overlap and shares "
                "in points.",
                head,
                rows,
                labels=2,
            )
        )
    return _drop_empty(candidates)


def _drop_empty(candidates: Sequence[Table]) -> list[Table]:
    """Drop rows without figures, then tables without rows."""
    kept = [
        dataclasses.replace(
            table, rows=tuple(row for row in table.rows if {*row[table.labels :]} != {_NOTHING})
        )
        for table in candidates
    ]
    return [table for table in kept if table.rows]


def _accuracy(models: Mapping[str, Figures], budget: int) -> Table:
    columns = _columns(models, budget)
    names = {"accuracy": "accuracy", "accuracy_all_orders": "all orders"}
    rows = _rows(models, budget, columns, names)
    return Table(
        f"Accuracy {_at(budget)}",
        "As in table 2 of the paper: correct answers in percent. “All orders” counts a question only if it "
        "is answered correctly under every order of its options.",
        ("model", "", *(column.head for column in columns)),
        rows,
        labels=2,
    )


def _dependence(models: Mapping[str, Figures], budget: int) -> Table:
    columns = _columns(models, budget)
    names = {accuracy_of(name): CONDITION_NAMES[name] for name in CONDITIONS}
    rows = _rows(models, budget, columns, names)
    several = any(row[1] != CONDITION_NAMES["predicted"] for row in rows)
    return Table(
        f"Crop dependence {_at(budget)}",
        "As in table 1 of the paper: accuracy in percent with the predicted crop, and with noise or the "
        "ground truth in its place. Not in the paper: a crop of a region without targets, a reply without "
        "a picture, and no tool at all.",
        ("model", "crop", *(column.head for column in columns)),
        rows if several else (),
        labels=2,
    )


def _changes(models: Mapping[str, Figures], budget: int) -> Table:
    columns = _columns(models, budget)
    names = {
        f"{one} - {other}": f"{CONDITION_NAMES[one]} - {CONDITION_NAMES[other]}" for one, other in CHANGES
    }
    return Table(
        f"Accuracy lost when the crop is replaced, {_at(budget)}",
        "The first row of each model is table 5 of the paper. In points; a model that uses its crops loses "
        "a lot with noise, and gains with the ground truth if its own crops are poor.",
        ("model", "difference", *(column.head for column in columns)),
        _rows(models, budget, columns, names, signed=True),
        labels=2,
    )


def _section_9(models: Mapping[str, Figures], budget: int) -> Table:
    columns = _columns(models, budget)
    poor = {figures["settings"]["poor_overlap"] for figures in models.values() if "settings" in figures}
    below = f"{min(poor):g}" if poor else "the threshold"
    accuracies = {
        "gt_test.predicted": "GT test: prediction",
        "gt_test.target": "GT test: ground truth",
        "noise_test.predicted": "noise test: prediction",
        "noise_test.noise": "noise test: random noise",
        "noise_test.elsewhere": "noise test: elsewhere",
    }
    changes = {
        "gt_test.target - predicted": "GT test: ground truth - prediction",
        "noise_test.predicted - noise": "noise test: prediction - random noise",
        "noise_test.predicted - elsewhere": "noise test: prediction - elsewhere",
    }
    rows = []
    for name, figures in models.items():
        one = {name: figures}
        for test in ("gt_test", "noise_test"):
            accuracy_names = {key: text for key, text in accuracies.items() if key.startswith(test)}
            change_names = {key: text for key, text in changes.items() if key.startswith(test)}
            change_rows = _rows(one, budget, columns, change_names, signed=True)
            rows += [*_rows(one, budget, columns, accuracy_names), *change_rows] if change_rows else []
    return Table(
        f"The two harder tests, {_at(budget)}",
        f"As in table 7 of the paper. GT test: the rows whose predicted crop covers less than {below} of the "
        "ground truth. Noise test: the rows answered wrongly without the tool and correctly with it, so the "
        "prediction is correct by selection. Accuracy in percent, differences in points.",
        ("model", "test", *(column.head for column in columns)),
        tuple(rows),
        labels=2,
    )


def _accuracy_and_iou(models: Mapping[str, Figures], budget: int) -> Table:
    columns = _columns(models, budget)
    rows = [
        (
            name,
            *(
                _cell(column.figures(figures, budget), figure, column.questions)
                for column in columns
                for figure in ("accuracy", "iou")
            ),
        )
        for name, figures in models.items()
    ]
    measured = any(cell != _NOTHING for row in rows for cell in row[2::2])
    return Table(
        f"Accuracy and IoU {_at(budget)}",
        "As in table 3 of the paper, in percent. IoU is over the questions with a crop and ground truth.",
        ("model", *(f"{column.head}: {text}" for column in columns for text in ("Acc", "IoU"))),
        tuple(rows) if measured else (),
    )


def _crops(models: Mapping[str, Figures], budget: int) -> Table:
    rows = []
    for name, figures in models.items():
        for column in _columns(models, budget):
            group = column.figures(figures, budget)
            cells = [_cell(group, figure, column.questions) for figure, _ in _CROP_COLUMNS]
            rows.append((name, column.head, *cells))
    return Table(
        f"Crops and their cost, {_at(budget)}",
        "Not in the paper. Shares, overlap, IoU and size in percent; overlap is the covered share of the "
        "smallest region. The last column counts the full image and all crops of a question.",
        ("model", "questions", *(head for _, head in _CROP_COLUMNS)),
        tuple(rows),
        labels=2,
    )


def _cost(models: Mapping[str, Figures], budgets: Sequence[int]) -> Table:
    by_budget = {budget: _columns(models, budget, overall=True) for budget in budgets}
    heads = list(dict.fromkeys(column.head for columns in by_budget.values() for column in columns))
    rows = []
    for name, figures in models.items():
        for budget, columns in by_budget.items():
            by_head = {column.head: column for column in columns}
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
        "As in table 6 of the paper. Seconds are comparable only with the same machine, engine and batch "
        "size.",
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
    rows: dict[tuple[str, int], dict[str, str]] = {}
    for name, figures in models.items():
        for each in figures["budgets"]:
            head = _head(each["benchmark"], each["category"], each["questions"])
            cell = _formatted(each["accuracy"], "percent", each["questions"], signed=True)
            rows.setdefault((name, each["budget"]), {})[head] = cell
    heads = list(dict.fromkeys(head for cells in rows.values() for head in cells))
    against = dict(steps)
    return Table(
        "Accuracy gained with a larger budget",
        "Accuracy at the larger budget minus that at the smaller, in points. The more of the detail missing "
        "from the small full image the crops recover, the smaller this is.",
        ("model", "budgets", *heads),
        tuple(
            (name, f"{budget:,} - {against[budget]:,}", *(cells.get(head, _NOTHING) for head in heads))
            for (name, budget), cells in rows.items()
        ),
        labels=2,
    )


def _form(models: Mapping[str, Figures], budgets: Sequence[int]) -> Table:
    names = {well_formed_of(name): CONDITION_NAMES[name] for name in CONDITIONS}
    rows = []
    for name, figures in models.items():
        for budget in budgets:
            for column in _columns(models, budget, overall=True):
                group = column.figures(figures, budget)
                cells = [_cell(group, figure, column.questions) for figure in names]
                rows.append((name, f"{budget:,}", column.head, *cells))
    return Table(
        "Well-formed rollouts",
        "In percent, by what replaces the crop. If noise breaks the format, a low accuracy under noise says "
        "little about whether the model uses its crops.",
        ("model", "budget", "questions", *names.values()),
        tuple(rows),
        labels=3,
    )


# --- columns and cells --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Column:
    """A table column: a benchmark or one of its categories."""

    benchmark: str
    category: str | None
    questions: int

    @property
    def head(self) -> str:
        return _head(self.benchmark, self.category, self.questions)

    def figures(self, of: Figures, budget: int) -> Mapping[str, Any]:
        """Return a model's figures for this column; empty if it has none."""
        key = (self.benchmark, budget, self.category)
        for group in of["groups"]:
            if (group["benchmark"], group["budget"], group["category"]) == key:
                figures: Mapping[str, Any] = group["figures"]
                return figures
        return {}


def _head(benchmark: str, category: str | None, questions: int) -> str:
    return f"{benchmark}{f' {category}' if category is not None else ''} (n={questions})"


def _columns(models: Mapping[str, Figures], budget: int, *, overall: bool = False) -> list[_Column]:
    """Return the columns: the categories of each benchmark, then the whole benchmark, as in the paper."""
    by_benchmark: dict[str, dict[str | None, _Column]] = {}
    for figures in models.values():
        for group in figures["groups"]:
            if group["budget"] == budget and (group["category"] is None or not overall):
                column = _Column(group["benchmark"], group["category"], group["questions"])
                by_benchmark.setdefault(column.benchmark, {}).setdefault(column.category, column)
    return [
        column
        for columns in by_benchmark.values()
        for column in sorted(columns.values(), key=lambda column: column.category is None)
    ]


def _rows(
    models: Mapping[str, Figures],
    budget: int,
    columns: Sequence[_Column],
    names: Mapping[str, str],
    *,
    signed: bool = False,
) -> tuple[tuple[str, ...], ...]:
    """Return a row per model and figure, without figures that the model lacks."""

    def lines() -> Iterator[tuple[str, ...]]:
        for model, figures in models.items():
            groups = [column.figures(figures, budget) for column in columns]
            for figure, text in names.items():
                if any(group and group[figure]["n"] for group in groups):
                    cells = (
                        _cell(group, figure, column.questions, signed=signed)
                        for group, column in zip(groups, columns, strict=True)
                    )
                    yield (model, text, *cells)

    return tuple(lines())


def _cell(figures: Mapping[str, Any], name: str, questions: int, *, signed: bool = False) -> str:
    if not figures:
        return _NOTHING
    return _formatted(figures[name], _KINDS.get(name, "percent"), questions, signed=signed)


def _formatted(figure: Mapping[str, Any], kind: str, questions: int, *, signed: bool = False) -> str:
    """Format a figure as a cell: `72.1 [68.0, 76.0]`, with its own n if it is over fewer questions."""
    if not figure["n"]:
        return _NOTHING
    pattern, scale = _PATTERNS[kind], _SCALES.get(kind, 1.0)
    sign = "+z" if signed else "z"  # z: no negative zero
    text = f"{scale * figure['value']:{sign}{pattern}}"
    if figure["low"] is not None:
        text += f" [{scale * figure['low']:{sign}{pattern}}, {scale * figure['high']:{sign}{pattern}}]"
        text += "*" if signed and excludes_zero(figure["low"], figure["high"]) else ""
    return text if figure["n"] == questions else f"{text} (n={figure['n']})"


def _at(budget: int) -> str:
    return f"at {budget:,} visual tokens"


# --- Markdown ----------------------------------------------------------------------------------------


def to_markdown(all_tables: Sequence[Table], *, title: str, intro: Sequence[str] = ()) -> str:
    """Render tables as a Markdown text.

    Args:
        all_tables: the tables.
        title: the heading.
        intro: paragraphs before the legend.
    """
    parts = [f"# {_escaped(title)}", *map(_escaped, intro), LEGEND]
    for table in all_tables:
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
    """Escape text from files, so that it cannot become a column, a line, emphasis or HTML."""
    text = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\|*`[]" if not _is_number(text) else "*":
        text = text.replace(sign, "\\" + sign)
    return text


def _is_number(text: str) -> bool:
    return not set(text) - set("+-0123456789.,[]*()n= ")
