"""`lfpc annotate` in a real Chromium: drawing and its accidents, undo, questions, keys, fingers."""

import json

import pytest

from lfpc_trl import cli
from lfpc_trl.annotate.journal import Content
from lfpc_trl.annotate.project import Project
from lfpc_trl.data.rows import read_rows
from tests import tiny
from tests.pages.conftest import SIZE, noise, write_rows_file
from tests.pages.driving import last_change, near

pytestmark = pytest.mark.browser

BOX = [200, 200, 300, 300]


@pytest.fixture
def boxed(opened, serve, tmp_path):
    """A page with one row that has `BOX`, selected; the row's file; where the box is on the screen."""
    rows = write_rows_file(tmp_path, 1, targets=[BOX])
    page = opened(serve("annotate", rows).url)
    line = page.until(page.line_of_the_box)
    page.keyboard.press("b")
    page.until(lambda: page.locator(".boxes .box.selected").count() == 1)
    return page, rows, line


def journal_of(rows):
    journal = rows.with_name(rows.name + ".annotations.jsonl")
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def ready(page, row="q0"):
    """Waits until a row is open and its picture can be drawn on; the stage's box."""
    page.until(lambda: page.text("#row-name") == row and page.text("#scale"))
    return page.locator("#picture").bounding_box()


# --- drawing wins outside a box ----------------------------------------------------------------------


def test_a_box_begun_beside_another_one_leaves_that_one_as_it_is(boxed):
    page, rows, line = boxed
    for column in (-1, 0, 1):
        for row in (-1, 0, 1):
            if column == row == 0:
                continue
            # 3 px outside a corner, or the middle of an edge, and away from it.
            x = line["x"] + line["width"] * (column + 1) / 2 + 3 * column
            y = line["y"] + line["height"] * (row + 1) / 2 + 3 * row
            page.drag((x, y), (x + 40 * (column or 1), y + 40 * (row or 1)))
            page.until_saved()
            [region] = last_change(rows)["targets"]
            assert BOX in region, (column, row, region)
            assert len(region) == 2, (column, row, region)
            page.keyboard.press("Control+z")
            page.until_saved()
            assert last_change(rows)["targets"] == [[BOX]]
            page.keyboard.press("b")
    assert page.errors == []


def test_the_rim_of_the_selected_box_resizes_it_and_never_below_what_can_be_cut(boxed):
    page, rows, line = boxed
    right, bottom = line["x"] + line["width"], line["y"] + line["height"]
    page.drag((right - 3, bottom - 3), (right + 47, bottom + 22))
    page.until_saved()
    scale = line["width"] / 100
    assert near(last_change(rows)["targets"][0][0], [200, 200, 300 + 50 / scale, 300 + 25 / scale])
    page.keyboard.press("Control+z")
    page.drag((right - 3, bottom - 3), (line["x"] - 90, line["y"] - 90))  # across the opposite corner
    page.until_saved()
    assert last_change(rows)["targets"] == [[[200, 200, 208, 208]]]
    page.keyboard.press("Control+ArrowLeft")
    page.until_saved()
    assert last_change(rows)["targets"] == [[[200, 200, 208, 208]]]


def test_what_is_too_small_to_be_a_box_is_not_drawn(boxed):
    page, rows, line = boxed
    x, y = line["x"] - 60, line["y"] - 60
    page.drag((x, y), (x + 5, y + 5))
    page.until(lambda: page.text("#toast") == "Not drawn: the box is thinner than 8 px.")
    stage = page.locator("#picture").bounding_box()
    page.drag((stage["x"] + 200, stage["y"] + 5), (stage["x"] + 300, stage["y"] + 40))  # above the picture
    page.until(lambda: page.text("#toast") == "Not drawn: the box is empty.")
    page.page.mouse.click(line["x"] + 2, line["y"] + 2)  # on the rim, without movement
    page.page.mouse.click(x, y)
    page.wait_for_timeout(500)
    assert journal_of(rows) == []
    assert page.errors == []


def test_a_drag_that_ends_outside_the_picture_ends_at_its_border(boxed):
    page, rows, line = boxed
    page.keyboard.press("r")
    stage = page.locator("#picture").bounding_box()
    page.drag((line["x"] + 150, line["y"] + 150), (stage["x"] + stage["width"] + 90, stage["y"] - 30))
    page.until_saved()
    [_, [box]] = last_change(rows)["targets"]
    assert (box[1], box[2]) == (0, SIZE[0])


def test_nothing_else_touches_the_boxes_while_one_is_in_the_hand(boxed):
    page, rows, line = boxed
    mouse = page.page.mouse
    mouse.move(line["x"] + 2, line["y"] + 2)
    mouse.down()
    mouse.move(line["x"] - 30, line["y"] - 30)
    for key in ("Delete", "Control+z", "m", "Enter", "1"):
        page.keyboard.press(key)
    mouse.down(button="right")
    mouse.up(button="right")
    page.keyboard.press("Escape")
    mouse.move(line["x"] - 60, line["y"] - 60)
    mouse.up()
    page.wait_for_timeout(400)
    assert journal_of(rows) == []
    assert page.text("#regions li .mono") == "200, 200, 300, 300"
    assert page.errors == []


def test_done_refuses_what_the_page_marks_red(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1, targets=[[200, 200, 205, 300]])
    page = opened(serve("annotate", rows).url)
    page.until(lambda: page.locator(".boxes .box.bad").count() == 1)
    page.fill("#question", "Changed?")
    page.keyboard.press("Control+Enter")
    page.until(lambda: page.text("#toast").startswith("Not finished: targets must be boxes that the crop"))
    assert last_change(rows)["status"] == "open"


def test_what_is_red_on_the_page_is_refused_by_the_server(opened, serve, rows_file):
    regions = [
        [[0, 0, 8, 8]],
        [[0, 0, 7, 8]],
        [[0, 0, 7, 7], [0, 0, 20, 20]],
        [[0.5, 0.5, 8.2, 8.2]],
        [[0, 0, 7.9, 7.9]],
        [[0, 0, 640, 8]],
        [[0, 0, 600, 5]],
        [[5, 5, 5, 50]],
        [[10, 10, 60, 60], [20, 20, 90, 90]],
        [[10, 10, 60, 60], [10, 10, 60, 60]],
        [[10, 10, 60, 60], [0, 0, 90, 60]],
        [[10, 10, 60, 60], [10, 10, 60, 60], [0, 0, 90, 90]],
    ]
    page = opened(serve("annotate", rows_file).url)
    ready(page)
    red = page.evaluate(
        """regions => import("/static/page/boxes.js").then(({ Boxes }) =>
             regions.map(region => new Boxes([region], [640, 480]).fault))""",
        regions,
    )
    project = Project(rows_file)
    item = project.items[0]
    refused = [
        project.problems(item, Content("?", ("KR",), None, (tuple(map(tuple, region)),)))
        for region in regions
    ]
    assert list(map(bool, red)) == list(map(bool, refused)), list(zip(regions, red, refused, strict=True))
    assert sum(map(bool, red)) == 7


def test_two_equal_boxes_on_a_picture_are_red_and_done_says_why(boxed):
    page, rows, line = boxed
    page.keyboard.press("r")
    page.drag((line["x"] + 60, line["y"] + 60), (line["x"] + 130, line["y"] + 130))
    page.until_saved()
    assert page.locator(".boxes .box.bad").count() == 0
    [[first], [second]] = last_change(rows)["targets"]
    for index, keys in enumerate(("Control+Shift+{}", "Control+Shift+{}", "Control+{}", "Control+{}")):
        way = first[index] - second[index]  # of one edge after the other, by the keyboard
        arrow = ("ArrowLeft", "ArrowRight") if index % 2 == 0 else ("ArrowUp", "ArrowDown")
        for _ in range(abs(way)):
            page.keyboard.press(keys.format(arrow[way > 0]))
    page.until_saved()
    assert last_change(rows)["targets"] == [[BOX], [BOX]]
    assert page.locator(".boxes .box.bad").count() == 2
    assert "is equal to 2·B1" in page.text("#regions")
    assert page.locator("#problems .remedy").count() == 0
    page.keyboard.press("Enter")
    page.until(
        lambda: page.text("#toast") == f"Not finished: targets must differ, got {BOX} twice on one picture"
    )
    assert last_change(rows)["status"] == "open"
    assert page.errors == []


def test_a_drag_from_a_label_draws_a_click_on_it_selects_and_shift_moves(boxed):
    page, rows, line = boxed
    page.keyboard.press("Escape")
    label = page.locator(".boxes .tag").bounding_box()
    x, y = label["x"] + label["width"] / 2, label["y"] + label["height"] / 2
    page.drag((x, y), (x - 60, y - 60))
    page.until_saved()
    [region] = last_change(rows)["targets"]
    assert BOX in region
    assert len(region) == 2
    page.keyboard.press("Control+z")
    page.until_saved()
    page.keyboard.press("Escape")
    page.page.mouse.click(x, y)
    page.until(lambda: page.locator(".boxes .box.selected").count() == 1)
    page.keyboard.down("Shift")
    page.drag((line["x"] + 50, line["y"] + 50), (line["x"] + 90, line["y"] + 30))
    page.keyboard.up("Shift")
    page.until_saved()
    scale = line["width"] / 100
    wanted = [200 + 40 / scale, 200 - 20 / scale, 300 + 40 / scale, 300 - 20 / scale]
    assert near(last_change(rows)["targets"][0][0], wanted)
    assert page.errors == []


# --- undo --------------------------------------------------------------------------------------------


def test_every_edit_of_a_row_is_taken_back_and_done_again(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 2)
    page = opened(serve("annotate", rows).url)
    stage = ready(page)
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2

    def state():
        page.wait_for_timeout(400)  # a text is saved a little after the last key
        page.until_saved()
        return {
            name: last_change(rows)[name] for name in ("question", "choices", "answer", "targets", "note")
        }

    page.fill("#question", "Which colour?")
    seen = [state()]
    page.fill("#choices", "red\nblue")
    seen.append(state())
    page.fill("#answer", "B")
    seen.append(state())
    page.fill("#note", "dark")
    seen.append(state())
    page.keyboard.press("Escape")
    page.drag((x - 60, y - 60), (x + 60, y + 60))
    seen.append(state())
    page.keyboard.press("r")
    page.drag((x + 80, y - 60), (x + 120, y + 60))
    seen.append(state())
    assert len(seen[-1]["targets"]) == 2
    page.keyboard.press("Delete")
    seen.append(state())
    for expected in reversed(seen[:-1]):
        page.keyboard.press("Control+z")
        assert state() == expected
    page.keyboard.press("Control+z")  # back to what the file says
    assert state()["question"] == "What is 0?"
    assert page.is_disabled("#undo")
    for expected in seen:
        page.click("#redo")
        assert state() == expected
    # The way back is still there after a look at another row, and inside a field.
    page.keyboard.press("j")
    ready(page, "q1")
    page.keyboard.press("k")
    ready(page)
    page.click("#undo")
    assert state() == seen[-2]
    page.keyboard.press("q")
    page.keyboard.type(" Really?")
    assert state()["question"] == "Which colour? Really?"
    page.keyboard.press("Control+z")
    assert page.input_value("#question") == "Which colour?"
    assert state() == seen[-2]
    assert page.is_disabled("#redo") is False
    assert page.errors == []


def test_a_box_belongs_to_the_picture_of_its_tab_and_undo_turns_to_it(opened, serve, tmp_path):
    rows = tiny.make_several(tmp_path, 2)
    page = opened(serve("annotate", rows).url)
    stage = ready(page)
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2

    def tab():
        return page.text('#tabs [aria-selected="true"]')

    def saved():
        page.until_saved()
        change = last_change(rows)
        return dict(zip(change["target_images"], change["targets"], strict=True))

    assert tab() == "Image 3"  # that of the first target
    page.select_option("#filter", "all")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    page.keyboard.press("p")
    page.until(lambda: tab() == "Image 2" and "112 \N{MULTIPLICATION SIGN} 112 px" in page.text("#row-facts"))
    page.until(lambda: any("/tiles/1/" in address for address in page.requests))
    page.wait_for_timeout(500)
    page.drag((x - 60, y - 60), (x + 60, y + 60))
    drawn = saved()
    assert sorted(drawn) == [1, 2, 3]
    [[left, top, right, bottom]] = drawn[2]
    assert near([left + right, top + bottom], [112, 112])
    page.click("#tabs button >> nth=0")
    page.until(lambda: tab() == "Image 1" and page.text("#regions .mono") == "40, 40, 80, 70")
    page.keyboard.press("b")
    page.keyboard.press("Delete")
    assert sorted(saved()) == [2, 3]
    page.keyboard.press("Shift+P")
    page.until(lambda: tab() == "Image 3")
    page.keyboard.press("Control+z")
    page.until(lambda: tab() == "Image 1")
    assert saved() == drawn
    page.keyboard.press("Control+z")
    page.until(lambda: tab() == "Image 2")
    assert sorted(saved()) == [1, 3]
    page.keyboard.press("Control+y")
    assert saved() == drawn
    # The way back is still there after a look at another row.
    page.keyboard.press("j")
    ready(page, "q1")
    page.keyboard.press("k")
    ready(page)
    page.keyboard.press("Control+z")
    assert sorted(saved()) == [1, 3]
    assert page.errors == []


# --- questions, stage 1, progress --------------------------------------------------------------------


def test_a_picture_gets_a_second_question_and_both_become_rows(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 2, targets=[BOX])
    page = opened(serve("annotate", rows).url)
    ready(page)
    page.keyboard.press("+")
    page.wait_for_timeout(400)
    zoomed = page.text("#scale")
    page.keyboard.press("i")
    page.until(lambda: page.text("#row-name") == "q0#2")
    assert page.text("#scale") == zoomed  # the same view
    page.keyboard.type("What else?")
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    page.keyboard.type("NL")
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.until_saved()
    page.keyboard.press(",")
    page.until(lambda: page.text("#row-name") == "q0")
    assert page.text("#regions li .mono") == ", ".join(map(str, BOX))
    assert page.locator("#questions button").all_inner_texts() == ["1", "2"]
    page.click("#questions button >> nth=1")
    page.until(lambda: page.text("#row-name") == "q0#2")
    assert page.input_value("#question") == "What else?"
    page.keyboard.press("Enter")
    page.until(lambda: page.text("#progress-text") == "3 of 3 done, 0 left")
    project = Project(rows)
    assert [row.id for row in project.finished()] == ["q0", "q0#2", "q1"]
    assert project.median_seconds() > 0
    page.until(lambda: page.text("#pace").endswith("a row"))
    # Deleted, and brought back from the list of deleted questions.
    page.keyboard.press("x")
    page.until(lambda: page.text("#row-name") == "q0")
    page.until(lambda: page.text("#progress-text") == "2 of 2 done, 0 left")
    assert not page.is_visible("#questions")
    page.keyboard.press("x")  # a row of the file stays
    page.until(lambda: "can be skipped, not deleted" in page.text("#toast"))
    page.select_option("#filter", "deleted")
    page.keyboard.press("Escape")
    page.locator(".row.deleted").click()
    page.until(lambda: page.text("#row-name") == "q0#2")
    page.click("#delete-question")
    page.until(lambda: page.text("#progress-text") == "2 of 3 done, 1 left")
    assert page.errors == []


def test_a_row_that_needs_no_boxes_is_done_without_them(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 2)
    page = opened(serve("annotate", rows).url)
    stage = ready(page)
    page.keyboard.press("n")
    page.until_saved()
    page.until(lambda: page.locator("#problems li").count() == 0)
    page.keyboard.press("Enter")
    ready(page, "q1")
    assert (last_change(rows)["status"], last_change(rows)["without_boxes"]) == ("done", True)
    # A box takes the mark back.
    page.click("#without-boxes")
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.drag((x - 60, y - 60), (x + 60, y + 60))
    page.until_saved()
    assert last_change(rows)["without_boxes"] is False
    assert page.is_disabled("#without-boxes")


def test_for_stage_1_rows_are_done_without_boxes(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1)
    page = opened(serve("annotate", rows, "--stage", 1).url)
    ready(page)
    assert not page.is_visible("#without-boxes")
    page.keyboard.press("Enter")
    page.until(lambda: page.text("#progress-text") == "1 of 1 done, 0 left")
    page.until_saved()
    assert last_change(rows)["status"] == "done"


def test_the_page_lists_what_was_left_out_of_a_folder(opened, serve, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise().save(folder / "a.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").touch()
    page = opened(serve("annotate", folder).url)
    ready(page, "a.png")
    assert page.text("#left-out") == "2 files left out"
    page.keyboard.press("l")
    assert page.locator("#left-out-dialog dt").all_inner_texts() == ["broken.jpg", "notes.txt"]
    assert "not the suffix of a picture that is read" in page.text("#left-out-dialog")


# --- keys and fingers --------------------------------------------------------------------------------


def test_a_row_is_finished_by_the_keyboard_alone(opened, serve, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise().save(folder / "a.png")
    page = opened(serve("annotate", folder).url)
    ready(page, "a.png")
    for key, text in (("q", "Which?"), ("c", "red\nblue"), ("w", "A"), ("e", "easy")):
        page.keyboard.press(key)
        page.keyboard.insert_text(text)
        page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")  # no box: the picture moves
    page.keyboard.press("0")
    page.wait_for_timeout(700)
    page.keyboard.press("d")
    page.until_saved()
    [[[x1, y1, x2, y2]]] = last_change(folder)["targets"]
    assert near([(x1 + x2) / 2, (y1 + y2) / 2], [SIZE[0] / 2, SIZE[1] / 2])
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Control+ArrowRight")
    page.keyboard.press("Enter")
    page.until(lambda: page.text("#progress-text") == "1 of 1 done, 0 left")
    out = tmp_path / "boxes.jsonl"
    page.until_saved()
    assert cli.main(["annotate", str(folder), "--export", str(out)]) == 0
    [row] = read_rows(out, require_targets=True)
    assert (row.question, row.answer, row.choices) == ("Which?", ("A",), ("red", "blue"))
    assert row.regions[0].tolist() == [[x1, y1 - 10, x2 + 1, y2 - 10]]
    assert page.errors == []


def test_every_key_does_something_and_every_button_has_a_listed_key(opened, serve, rows_file):
    page = opened(serve("annotate", rows_file).url)
    ready(page)
    keys = page.evaluate(
        '() => import("/static/page/keys.js").then(({ KEYS }) => KEYS.flatMap(part => part[1]))'
    )
    page.keyboard.press("?")
    told = page.text("#help-dialog")
    assert all(entry[0] in told and entry[1] in told for entry in keys)
    box = page.locator("#help-dialog").bounding_box()
    assert box["y"] >= 0
    assert page.evaluate("document.querySelector('#help-dialog').scrollHeight") <= box["height"]
    page.keyboard.press("Escape")
    named = {key for entry in keys for key in (entry[3] if len(entry) > 3 else [])}
    buttons = "[...document.querySelectorAll('button[title]:not([role])')].map(each => each.title)"
    for title in page.evaluate(buttons):  # a key, or words with the key behind them: "Keys (?)"
        key = title.removesuffix(")").rpartition("(")[2].replace(" ", "").replace("\N{MINUS SIGN}", "-")
        assert key in named, title
    # Fields and dialogs are tried above and elsewhere.
    for key in sorted(named - {"/", "T", "Q", "C", "W", "E", "V", "L", "?"}):
        page.keyboard.press(key.replace("Ctrl", "Control"))
        page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    assert page.errors == []


@pytest.fixture
def touched(opened, serve, tmp_path):
    """A page on a screen that is touched, its file, and a way to touch it."""
    rows = write_rows_file(tmp_path, 1)
    page = opened(serve("annotate", rows).url, has_touch=True)
    stage = ready(page)
    session = page.context.new_cdp_session(page.page)

    def touch(kind, *points):
        places = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        session.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": places})

    return page, rows, stage, touch


def test_one_finger_draws(touched):
    page, rows, stage, touch = touched
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    touch("Start", (x - 60, y - 50))
    touch("Move", (x, y))
    touch("Move", (x + 60, y + 50))
    touch("End")
    page.until_saved()
    [[box]] = last_change(rows)["targets"]
    scale = stage["width"] / SIZE[0]
    middle = SIZE[0] / 2, SIZE[1] / 2
    assert near(
        box, [middle[0] - 60 / scale, middle[1] - 50 / scale, middle[0] + 60 / scale, middle[1] + 50 / scale]
    )


def test_two_fingers_move_and_zoom_and_draw_nothing(touched):
    page, rows, stage, touch = touched
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    before = float(page.text("#scale").split()[0])
    touch("Start", (x - 50, y))
    touch("Start", (x - 50, y), (x + 50, y))
    for step in range(1, 6):
        touch("Move", (x - 50 - 10 * step, y + 8 * step), (x + 50 + 10 * step, y + 8 * step))
    touch("End", (x - 100, y + 40))
    touch("Move", (x - 150, y + 90))  # the finger that is left draws nothing
    touch("End")
    page.wait_for_timeout(600)
    assert float(page.text("#scale").split()[0]) == pytest.approx(2 * before, rel=0.02)
    assert journal_of(rows) == []
    # What was between the fingers is still there: a finger draws around it.
    touch("Start", (x - 30, y + 10))
    touch("Move", (x + 30, y + 70))
    touch("End")
    page.until_saved()
    [[[x1, y1, x2, y2]]] = last_change(rows)["targets"]
    assert near([(x1 + x2) / 2, (y1 + y2) / 2], [SIZE[0] / 2, SIZE[1] / 2]), (x1, y1, x2, y2)
    assert page.errors == []


def test_the_hand_moves_the_picture(touched):
    page, rows, stage, touch = touched
    page.keyboard.press("+")
    page.wait_for_timeout(500)
    page.click("#hand")
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    touch("Start", (x, y))
    touch("Move", (x + 20, y + 10))
    touch("Move", (x + 60, y + 40))
    touch("End")
    page.drag((x, y), (x + 5, y))
    page.keyboard.press("h")
    page.wait_for_timeout(300)
    assert journal_of(rows) == []
    page.keyboard.press("d")
    page.until_saved()
    scale = float(page.text("#scale").split()[0]) / 100
    [[[x1, y1, x2, y2]]] = last_change(rows)["targets"]
    wanted = [SIZE[0] / 2 - 65 / scale, SIZE[1] / 2 - 40 / scale]
    assert [(x1 + x2) / 2, (y1 + y2) / 2] == pytest.approx(wanted, abs=2)
