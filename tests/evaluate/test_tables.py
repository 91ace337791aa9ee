import re

import pytest

from lfpc_trl.evaluate.summary import summarise
from lfpc_trl.evaluate.tables import Table, change_tables, tables, to_markdown
from tests.evaluate.fake import columns_of, rollout, rollouts


def figure(value=None, low=None, high=None, n=0):
    return {"value": value, "low": low, "high": high, "n": n}


@pytest.fixture(scope="module")
def figures():
    return summarise(columns_of(rollouts(questions=12)))


def named(found):
    return {table.title: table for table in found}


def by_title(models):
    return named(tables(models))


def test_the_tables_of_the_paper_and_what_it_lacks(figures):
    assert list(by_title({"mine": figures})) == [
        "Accuracy at 1,024 visual tokens",
        "Accuracy at 16,384 visual tokens",
        "Crop dependence at 1,024 visual tokens",
        "Accuracy lost when the crop is replaced, at 1,024 visual tokens",
        "The two harder tests, at 1,024 visual tokens",
        "Crop dependence at 16,384 visual tokens",
        "Accuracy lost when the crop is replaced, at 16,384 visual tokens",
        "The two harder tests, at 16,384 visual tokens",
        "Accuracy and IoU at 1,024 visual tokens",
        "Accuracy and IoU at 16,384 visual tokens",
        "Crops and their cost, at 1,024 visual tokens",
        "Crops and their cost, at 16,384 visual tokens",
        "Accuracy and seconds per question",
        "Accuracy gained with a larger budget",
        "Well-formed rollouts",
    ]


def test_subsets_stand_before_the_whole_and_models_in_their_order(figures):
    table = by_title({"b": figures, "a": figures})["Crop dependence at 1,024 visual tokens"]
    assert table.head == (
        *("model", "crop", "hr_bench_4k FSP (n=6)", "hr_bench_4k FCP (n=6)", "hr_bench_4k (n=12)"),
        *("vstar Attr (n=6)", "vstar Spatial (n=6)", "vstar (n=12)"),
    )
    assert [row[:2] for row in table.rows[:3]] == [
        ("b", "prediction"),
        ("b", "random noise"),
        ("b", "ground truth"),
    ]
    assert [row[0] for row in table.rows] == ["b"] * 6 + ["a"] * 6


def test_a_table_without_figures_is_left_out():
    found = by_title({"x": summarise(columns_of([rollout(row_id="a"), rollout(row_id="b", accuracy=0.0)]))})
    assert list(found) == [
        "Accuracy at 1,024 visual tokens",
        "Crops and their cost, at 1,024 visual tokens",
        "Accuracy and seconds per question",
        "Well-formed rollouts",
    ]
    assert found["Accuracy at 1,024 visual tokens"].rows == (("x", "accuracy", "50.0"),)
    assert found["Accuracy and seconds per question"].rows == (("x", "1,024", "50.0", "2.00"),)


CELLS = [  # id, figure, cell of the accuracy, cell of a change in it
    ("nothing", figure(), "n/a", "n/a"),
    ("an interval", figure(0.721, 0.68, 0.76, 40), "72.1 [68.0, 76.0]", "+72.1 [+68.0, +76.0]*"),
    ("fewer questions", figure(0.5, None, None, 3), "50.0 (n=3)", "+50.0 (n=3)"),
    ("a loss", figure(-0.1, -0.2, -0.01, 40), "-10.0 [-20.0, -1.0]", "-10.0 [-20.0, -1.0]*"),
    ("across 0", figure(0.01, -0.02, 0.04, 40), "1.0 [-2.0, 4.0]", "+1.0 [-2.0, +4.0]"),
    ("from 0 on", figure(0.01, 0.0, 0.04, 40), "1.0 [0.0, 4.0]", "+1.0 [+0.0, +4.0]"),
    ("no minus zero", figure(-0.0001, None, None, 40), "0.0", "+0.0"),
]


@pytest.mark.parametrize(("_", "found", "cell", "change"), CELLS, ids=[case[0] for case in CELLS])
def test_cells(_, found, cell, change):
    whole = summarise(columns_of([rollout()]))
    group = whole["groups"][0]
    group["questions"] = 40
    group["figures"] |= {"accuracy": found, "predicted - noise": found, "accuracy_noise": found}
    models = {"x": whole}
    if found["n"]:
        assert by_title(models)["Accuracy at 1,024 visual tokens"].rows[0][-1] == cell
        lost = by_title(models)["Accuracy lost when the crop is replaced, at 1,024 visual tokens"]
        assert lost.rows == (("x", "prediction - random noise", change),)
        (compared,) = change_tables({"x": whole["groups"]}, "base")
        assert compared.rows[0] == ("x", "accuracy", change)
    assert by_title(models)["Accuracy and seconds per question"].rows[0][2] == cell


def test_the_harder_tests_state_their_threshold_and_their_n():
    made = [
        rollout(row_id="a", accuracy=0.0, crops=1, overlap=0.1),
        rollout(row_id="a", accuracy=1.0, condition="target", crops=1),
        rollout(row_id="b", accuracy=0.0, crops=1, overlap=0.9),
    ]
    table = by_title({"x": summarise(columns_of(made), poor_overlap=0.25)})[
        "The two harder tests, at 1,024 visual tokens"
    ]
    assert "covers less than 0.25 of the ground truth" in table.note
    assert table.rows == (
        ("x", "GT test: prediction", "0.0 (n=1)"),
        ("x", "GT test: ground truth", "100.0 (n=1)"),
        ("x", "GT test: ground truth - prediction", "+100.0 (n=1)"),
    )


def test_a_model_that_lacks_a_budget_has_no_row_there(figures):
    small = summarise(columns_of(rollouts(questions=12, budgets=(1024,))))
    found = by_title({"both": figures, "small": small})
    assert [row[:2] for row in found["Accuracy and seconds per question"].rows] == [
        ("both", "1,024"),
        ("both", "16,384"),
        ("small", "1,024"),
    ]
    for title, table in found.items():
        assert not any(row[0] == "small" for row in table.rows) or "at 16,384" not in title
        assert not any({*row[table.labels :]} == {"n/a"} for row in table.rows)


def test_a_larger_budget_is_compared_in_every_column(figures):
    found = by_title({"b": figures, "a": figures})
    table = found["Accuracy gained with a larger budget"]
    assert sorted(table.head[2:]) == sorted(found["Crop dependence at 1,024 visual tokens"].head[2:])
    assert [row[:2] for row in table.rows] == [("b", "16,384 - 1,024"), ("a", "16,384 - 1,024")]
    assert not any("n/a" in row for row in table.rows)


def test_a_column_counts_the_questions_of_the_first_model(figures):
    few = summarise(columns_of(rollouts(questions=4)))
    for models, count in (({"many": figures, "few": few}, 12), ({"few": few, "many": figures}, 4)):
        table = by_title(models)["Crop dependence at 1,024 visual tokens"]
        assert table.head[4] == f"hr_bench_4k (n={count})"


# --- Markdown ----------------------------------------------------------------------------------------


def rendered(text):
    """Cells of every line that begins with a bar, split as a Markdown reader does."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_line_has_as_many_cells_as_the_head(figures):
    found = tables({"one": figures, "two": figures})
    for table in found:
        lines = rendered(to_markdown([table], title="t"))
        assert {len(line) for line in lines} == {len(table.head)}
        assert len(lines) == len(table.rows) + 2


def test_names_from_files_stay_text():
    evil = "a|b*c*\n# <script>alert(1)</script> [x](y) `z` \\"
    text = to_markdown([Table(evil, evil, ("model", evil), ((evil, "+1.0 [+0.5, +2.0]*"),))], title=evil)
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("# ")] == [lines[0]]
    assert "<script>" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert rendered(text)[2] == [
        r"a\|b\*c\* # &lt;script&gt;alert(1)&lt;/script&gt; \[x\](y) \`z\` \\",
        r"+1.0 [+0.5, +2.0]\*",
    ]
