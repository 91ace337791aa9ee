"""Both pages in a real Chromium: drawn with the mouse, found on the disk."""

import io
import json
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests import tiny
from tests.pages.conftest import SIGN, noise, trajectory, write_rows_file, write_trajectories
from tests.pages.driving import last_change, near

pytestmark = pytest.mark.browser

WORDS, BOARD = [5301, 2207, 5402, 2258], [5270, 2180, 5450, 2290]
"""The yellow and the white rectangle of the large picture, pixels of the original."""
YELLOW, WHITE = (255, 220, 0), (255, 255, 255)
SCRIPT = "<img src=x onerror=\"document.title='taken over'\"><script>document.title='taken over'</script>"


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A row with a picture of 33 million pixels: a white board with a yellow field on a dark ground."""
    folder = tmp_path_factory.mktemp("large")
    image = Image.new("RGB", (7680, 4320), (20, 40, 60))
    draw = ImageDraw.Draw(image)
    for box, colour in ((BOARD, WHITE), (WORDS, YELLOW)):
        draw.rectangle([box[0], box[1], box[2] - 1, box[3] - 1], fill=colour)
    image.save(folder / "large.png", compress_level=1)
    return folder / "large.png"


@pytest.fixture
def large_rows(large, tmp_path):
    row = {"id": "shop", "question": "What does the board say?", "answer": "KR", "image": str(large)}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    return tmp_path / "rows.jsonl"


# --- annotate ----------------------------------------------------------------------------------------


def test_boxes_drawn_on_an_8k_picture_are_saved_at_their_pixels(opened, serve, large_rows):
    page = opened(serve("annotate", large_rows).url)
    board = page.settled_extent(WHITE, YELLOW)
    tiles = [url for url in page.requests if "/tiles/" in url]
    assert all(int(url.split("/tiles/")[1].split("/")[1]) >= 3 for url in tiles), (
        tiles
    )  # never the original at once
    page.mouse.move((board[0] + board[2]) / 2, (board[1] + board[3]) / 2)
    for _ in range(15):
        page.mouse.wheel(0, -120)
    board = page.settled_extent(WHITE, YELLOW)
    assert board[2] - board[0] > 180  # more than one screen pixel per pixel
    page.drag(board[:2], board[2:])
    page.until_saved()
    words = page.settled_extent(YELLOW)
    page.drag(words[2:], words[:2])  # from the other corner, inside the first box
    page.until_saved()
    [[inner, outer]] = last_change(large_rows)["targets"]
    assert near(inner, WORDS), inner
    assert near(outer, BOARD), outer
    page.reload()
    page.until(lambda: page.locator("#regions li").count() == 2)
    assert page.text("#regions li:first-child .mono") == ", ".join(map(str, inner))
    page.until(lambda: page.locator(".boxes .box").count() == 2)
    assert page.errors == []
    server = page.url.partition("#")[0]
    assert all(url.startswith((server, "blob:")) for url in page.requests)  # nothing from elsewhere


def test_keys_undo_move_and_finish(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 2)
    page = opened(serve("annotate", rows).url)
    stage = page.until(
        lambda: page.locator("#picture canvas").count() and page.locator("#picture").bounding_box()
    )
    page.until(lambda: page.text("#row-name") == "q0")
    centre = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.drag((centre[0] - 60, centre[1] - 50), (centre[0] + 60, centre[1] + 50))
    page.until_saved()
    first = last_change(rows)["targets"][0][0]

    def press(key, expected):
        page.keyboard.press(key)
        page.until_saved()
        page.until(lambda: last_change(rows)["targets"] == expected, seconds=10)

    x1, y1, x2, y2 = first
    press("ArrowRight", [[[x1 + 1, y1, x2 + 1, y2]]])
    press("Shift+ArrowDown", [[[x1 + 1, y1 + 10, x2 + 1, y2 + 10]]])
    press("Control+ArrowLeft", [[[x1 + 1, y1 + 10, x2, y2 + 10]]])
    press("Control+Shift+ArrowUp", [[[x1 + 1, y1 + 9, x2, y2 + 10]]])
    press("Control+z", [[[x1 + 1, y1 + 10, x2, y2 + 10]]])
    press("Control+y", [[[x1 + 1, y1 + 9, x2, y2 + 10]]])
    page.keyboard.press("b")
    press("Delete", [])
    press("Control+z", [[[x1 + 1, y1 + 9, x2, y2 + 10]]])
    page.keyboard.press("Enter")
    page.until(lambda: page.text("#row-name") == "q1")
    assert last_change(rows)["status"] == "done"
    assert page.text("#progress-text") == "1 of 2 done, 1 left"
    page.keyboard.press("Enter")  # without a box
    page.until(lambda: "Not finished: targets are needed" in page.text("#toast"))
    page.keyboard.press("s")
    page.until(lambda: page.text("#progress-text") == "1 of 2 done, 1 skipped, 0 left")
    page.keyboard.press("?")
    assert "draw a box, also inside another" in page.text("#help-dialog")
    assert page.errors == []


def test_a_box_that_breaks_the_nesting_is_shown_and_put_right(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1, targets=[[200, 200, 300, 300]])
    page = opened(serve("annotate", rows).url)
    line = page.until(page.line_of_the_box)
    scale = line["width"] / 100
    # From inside the first box to far outside: it does not contain it.
    page.drag(
        (line["x"] + 50 * scale, line["y"] + 50 * scale), (line["x"] + 210 * scale, line["y"] + 190 * scale)
    )
    page.until_saved()
    page.until(lambda: page.locator(".boxes .box.bad").count() == 2)
    assert page.text("#problems li:first-child").startswith(
        "targets must be nested, inner to outer, got [200.0, 200.0"
    )
    page.keyboard.press("Enter")
    page.until(lambda: page.text("#toast").startswith("Not finished: targets must be nested"))
    page.keyboard.press("g")
    page.until(lambda: page.locator(".boxes .box.bad").count() == 0)
    page.until_saved()
    page.until(lambda: page.locator("#problems li").count() == 0)
    [[inner, outer]] = last_change(rows)["targets"]
    assert inner == [200, 200, 300, 300]
    assert near(outer, [200, 200, 410, 390])


def test_several_objects_have_regions_of_their_own(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1, targets=[[200, 200, 300, 300]])
    page = opened(serve("annotate", rows).url)
    line = page.until(page.line_of_the_box)
    page.keyboard.press("r")
    page.drag((line["x"] + line["width"] + 40, line["y"]), (line["x"] + line["width"] + 90, line["y"] + 60))
    page.until_saved()
    assert [len(region) for region in last_change(rows)["targets"]] == [1, 1]
    assert page.locator("#problems li").count() == 0
    assert page.text("#regions").count("Region") == 2


LATE_ANSWERS = """
    const now = window.fetch;
    const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
    window.fetch = async (url, options) => {
      if (options?.method === "POST") await wait(150);
      const answer = await now(url, options);
      if (options?.method !== "POST" && String(url).includes("/api/items/")) await wait(600);
      return answer;
    };
"""
"""A row is read before a change reaches the server, and shown after the change was confirmed."""


def test_a_killed_server_loses_nothing(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1)
    server = serve("annotate", rows)
    page = opened(server.url)
    page.until(lambda: page.text("#row-name") == "q0")
    page.fill("#question", "Saved before the kill?")
    page.until(lambda: last_change(rows)["question"] == "Saved before the kill?")
    page.until_saved()
    server.kill()
    page.fill("#answer", "typed while nobody listened")
    page.until(lambda: page.text("#save-state").startswith("Not saved: the server does not answer."))
    again = serve("annotate", rows, port=server.port)
    page.until(
        lambda: page.text("#save-state").startswith("Not saved: open the address that the server printed.")
    )
    page.page.add_init_script(LATE_ANSWERS)
    page.goto(again.url)
    page.until(lambda: last_change(rows)["answer"] == ["typed while nobody listened"])
    page.until_saved()
    assert last_change(rows)["question"] == "Saved before the kill?"
    assert last_change(rows)["revision"] == 2
    page.until(lambda: page.input_value("#answer") == "typed while nobody listened")


def test_a_killed_browser_loses_nothing(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1)
    server = serve("annotate", rows)
    page = opened(server.url)
    page.until(lambda: page.text("#row-name") == "q0")
    page.locator("#question").press_sequentially("Typed at the last moment", delay=0)
    page.page.close()  # before the pause after typing is over
    end = time.monotonic() + 20
    journal = rows.with_name("rows.jsonl.annotations.jsonl")
    while time.monotonic() < end and not (journal.exists() and "last moment" in journal.read_text()):
        time.sleep(0.05)
    assert last_change(rows)["question"].endswith("Typed at the last moment")


@pytest.mark.parametrize("choice", ["#keep-mine", "#take-theirs"])
def test_two_annotators_choose_between_both_versions(opened, serve, tmp_path, choice):
    rows = write_rows_file(tmp_path, 1)
    ann, ben = (
        opened(serve("annotate", rows, "--annotator", "ann").url),
        opened(serve("annotate", rows, "--annotator", "ben").url),
    )
    for page in (ann, ben):
        page.until(lambda page=page: page.text("#row-name") == "q0")
    # Ben's page does not hear of Ann's change before he makes his own.
    ben.route("**/api/changes*", lambda route: route.abort())
    ann.fill("#answer", "by ann")
    ann.until(lambda: last_change(rows)["answer"] == ["by ann"])
    ben.fill("#answer", "by ben")
    ben.until(lambda: ben.locator("#conflict-dialog").is_visible())
    shown = ben.text("#conflict-dialog")
    assert "by ann" in shown
    assert "by ben" in shown
    assert last_change(rows)["answer"] == ["by ann"]
    ben.click(choice)
    winner = {"#keep-mine": "by ben", "#take-theirs": "by ann"}[choice]
    ben.until(lambda: ben.input_value("#answer") == winner)
    ben.until_saved()
    ben.until(lambda: last_change(rows)["answer"] == [winner])
    # The other page hears of it by itself.
    ann.until(lambda: ann.input_value("#answer") == winner)
    assert not ann.locator("#conflict-dialog").is_visible()


def test_text_of_the_data_stays_text(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1, question=SCRIPT, answer=SCRIPT)
    page = opened(serve("annotate", rows).url)
    page.until(lambda: page.text("#row-name") == "q0")
    assert page.input_value("#question") == SCRIPT
    assert page.text(".row-question") == SCRIPT
    page.keyboard.press("v")
    page.until(lambda: SCRIPT in page.text("#model-dialog"))
    assert page.title() == "q0 · lfpc annotate"
    assert page.errors == []
    # And if it were put in as HTML, the policy would stop it.
    page.evaluate("text => document.body.insertAdjacentHTML('beforeend', text)", SCRIPT)
    page.until(lambda: any("Content Security Policy" in error for error in page.errors))
    assert page.title() == "q0 · lfpc annotate"


def test_boxes_of_a_model_are_accepted_by_key(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1)
    crops = write_trajectories(
        tmp_path / "t.parquet",
        [
            trajectory(boxes=[[100, 100, 200, 150]], reward=2.0),
            trajectory(boxes=[[80, 80, 260, 190]], reward=1.0),
        ],
    )
    page = opened(serve("annotate", rows, "--prefill", crops).url)
    page.until(lambda: page.locator(".boxes .proposal").count() == 2)
    page.keyboard.press("a")
    page.keyboard.press("a")
    page.until(lambda: page.locator(".boxes .proposal").count() == 0)
    page.until_saved()
    change = last_change(rows)
    assert change["targets"] == [SIGN]
    assert change["proposed"] == [[{"by": "t.parquet", "box": box} for box in SIGN]]
    assert not page.is_visible("#propose")  # there is no model to ask
    page.keyboard.press("u")
    page.until(lambda: "start with --model or --endpoint" in page.text("#toast"))


def test_boxes_of_a_model_are_proposed_on_their_pictures(opened, serve, tmp_path):
    rows = tiny.make_several(tmp_path, 1, targets=None, target_images=None)
    crops = write_trajectories(
        tmp_path / "t.parquet",
        [
            trajectory(boxes=[[95, 145, 175, 215], [45, 45, 85, 75]], box_images=[3, 1], reward=2.0),
            trajectory(boxes=[[90, 140, 180, 220]], box_images=[3], reward=1.0),
        ],
    )
    page = opened(serve("annotate", rows, "--prefill", crops).url)

    def proposed(tab, count):
        page.until(lambda: page.text('#tabs [aria-selected="true"]') == tab)
        page.until(lambda: page.locator(".boxes .proposal").count() == count)

    proposed("Image 1", 1)
    page.keyboard.press("a")
    proposed("Image 1", 0)
    page.keyboard.press("p")
    proposed("Image 2", 0)
    page.keyboard.press("p")
    proposed("Image 3", 2)
    page.keyboard.press("a")
    proposed("Image 3", 1)
    page.click("#tabs button >> nth=0")
    proposed("Image 1", 0)  # what was taken is not proposed again
    page.click("#tabs button >> nth=2")
    proposed("Image 3", 1)
    page.until_saved()
    change = last_change(rows)
    taken = dict(zip(change["target_images"], change["targets"], strict=True))
    assert taken == {1: [[45, 45, 85, 75]], 3: [[95, 145, 175, 215]]}
    assert page.errors == []


def test_a_picture_that_cannot_be_read_is_told(opened, serve, tmp_path):
    rows = write_rows_file(tmp_path, 1)
    server = serve("annotate", rows)
    (tmp_path / "picture-0.png").write_bytes(b"no picture")
    page = opened(server.url)
    page.until(lambda: "picture-0.png cannot be read" in page.text(".stage"))


# --- view --------------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path):
    """Two runs of two steps; the second answers what the first does not."""
    script = [{"role": "user", "content": SCRIPT}, {"role": "assistant", "content": SCRIPT}]
    for name, skill in (("first", 0.0), ("second", 1.0)):
        for step in (1, 2):
            write_trajectories(
                tmp_path / name / "trajectories" / f"step-{step:06}.parquet",
                [
                    trajectory(step=step, row_id="q0", rollout=0, answer=f"{name} {step}"),
                    trajectory(
                        step=step,
                        row_id="q0",
                        rollout=1,
                        boxes=[],
                        scores=[("accuracy", skill)],
                        reward=skill,
                    ),
                    trajectory(
                        step=step, row_id="evil", question=SCRIPT, answer=SCRIPT, messages=json.dumps(script)
                    ),
                ],
            )
        lines = [{"step": step, "reward": skill + step / 10, "iou": 0.1 * step} for step in range(1, 9)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "first", tmp_path / "second"


def test_trajectories_are_listed_filtered_and_shown(opened, serve, runs):
    page = opened(serve("view", runs[0]).url)
    page.until(lambda: page.text("#count") == "6 of 6 trajectories")
    page.until(lambda: page.locator(".boxes .box.crop").count() == 1)
    assert page.locator(".boxes .box.target").count() == 2
    assert not page.locator("#condition").is_visible()  # that of evaluations
    assert "first 1" in page.text(".says-row")
    assert "Thumbnail" in page.text(".note")
    assert page.text("table tbody tr td:nth-child(4)") == "1"
    page.select_option("#outcome", "wrong")
    page.until(lambda: page.text("#count") == "2 of 6 trajectories")
    page.until(lambda: "no crop" in page.text(".legend"))
    page.select_option("#step", "2")
    page.until(lambda: page.text("#count") == "1 of 6 trajectories")
    page.select_option("#outcome", "")
    page.until(lambda: page.text("#count") == "3 of 6 trajectories")
    page.locator(".row").first.focus()
    page.keyboard.press("j")
    page.until(lambda: "0 crops" in page.text(".facts"))
    page.locator(".chips button").first.click()  # the other rollout of the question
    page.until(lambda: "1 crop" in page.text(".facts"))
    assert page.errors == []


def test_the_conditions_of_an_evaluation_are_shown_and_filtered(opened, serve, tmp_path):
    for name, accuracy in (
        ("first", {"predicted": 1.0, "noise": 0.0}),
        ("second", {"noise": 1.0, "predicted": 1.0}),
    ):
        write_trajectories(
            tmp_path / f"{name}.parquet",
            [
                trajectory(rollout=rollout, condition=condition, scores=[("accuracy", value)], reward=value)
                for rollout, (condition, value) in enumerate(accuracy.items())
            ],
        )
    page = opened(serve("view", tmp_path / "first.parquet", tmp_path / "second.parquet").url)
    page.until(lambda: page.text("#count") == "2 of 2 trajectories")
    for run in range(2):  # the second run lists the other condition first
        page.until(lambda pane=f".pane.run-{run} .facts": "predicted" in page.text(pane))
    assert page.locator("#condition option").all_inner_texts() == ["Any condition", "predicted", "noise"]
    page.select_option("#condition", "noise")
    page.until(lambda: page.text("#count") == "1 of 2 trajectories")
    assert page.text(".row-question").startswith("noise · step 1")
    page.until(
        lambda: "noise" in page.text(".pane.run-0 .facts") and "noise" in page.text(".pane.run-1 .facts")
    )
    assert page.locator(".pane.run-0 .chips button").all_inner_texts() == ["predicted 1", "noise 0"]
    page.locator(".pane.run-0 .chips button").first.click()
    page.until(lambda: "predicted" in page.text(".pane.run-0 .facts"))
    assert page.errors == []


def test_pictures_of_a_question_are_tabs_with_their_own_boxes(opened, serve, tmp_path):
    rows = tiny.make_several(tmp_path, 1)
    [row] = map(json.loads, rows.read_text().splitlines())
    rollout = trajectory(
        images=[str(tmp_path / image) for image in row["images"]],
        image_sizes=[[224, 168], [112, 112], [196, 252]],
        boxes=[[95, 145, 175, 215], [45, 45, 85, 75], [10, 10, 60, 60]],
        box_images=[3, 1, 1],
        targets=row["targets"],
        target_images=row["target_images"],
    )
    write_trajectories(tmp_path / "t.parquet", [rollout])
    page = opened(serve("view", tmp_path / "t.parquet", "--data", rows).url)

    def shows(tab, crops, targets):
        page.until(lambda: page.text('.tabs [aria-selected="true"]') == tab)
        page.until(lambda: page.locator(".boxes .box.crop").count() == crops)
        page.until(lambda: page.locator(".boxes .box.target").count() == targets)

    shows("Image 3", 1, 2)  # where the model looked first
    assert page.locator(".tabs button").all_inner_texts() == ["Image 1", "Image 2", "Image 3"]
    page.click(".tabs button >> nth=1")
    shows("Image 2", 0, 0)
    page.click(".tabs button >> nth=0")
    shows("Image 1", 2, 1)
    for number in (0, 1, 2):  # each as its original
        page.until(lambda tiles=f"/tiles/{number}/": any(tiles in url for url in page.requests))
    assert not page.locator(".note").is_visible()
    assert page.locator("table tbody tr td:nth-child(2)").all_inner_texts() == ["3", "1", "1"]
    page.locator("table tbody button.mono").first.click()
    shows("Image 3", 1, 2)
    page.locator(".legend button").nth(1).click()  # the first crop, off
    shows("Image 3", 0, 2)
    assert page.errors == []


def test_what_a_model_wrote_stays_text(opened, serve, runs):
    page = opened(serve("view", runs[0]).url)
    page.until(lambda: page.text("#count") == "6 of 6 trajectories")
    page.fill("#text", "onerror")
    page.until(lambda: page.text("#count") == "2 of 6 trajectories")
    page.until(lambda: page.locator(".turns .says").all_inner_texts() == [SCRIPT, SCRIPT])
    assert page.text(".pane h2") == SCRIPT
    assert page.title() == "first · lfpc view"
    assert page.errors == []


def test_two_runs_stand_side_by_side(opened, serve, runs):
    page = opened(serve("view", *runs).url)
    page.until(lambda: page.locator(".pane").count() == 2)
    page.until(
        lambda: (
            "first 1" in page.text(".run-0 .says-row") and "second 1" in page.text(".pane.run-1 .says-row")
        )
    )
    page.select_option("#against", "worse")
    page.until(lambda: page.text("#count") == "4 of 6 trajectories")
    page.click("#tab-curves")
    page.until(lambda: page.locator(".chart canvas").count() == 2)
    assert [page.text(f".chart >> nth={n} >> h3").split()[0] for n in range(2)] == ["reward", "iou"]
    assert "step 8: 0.800 / 1.80" in page.text(".chart >> nth=0")
    drawn = np.asarray(
        Image.open(io.BytesIO(page.locator(".chart").first.screenshot())).convert("RGB"), dtype=int
    )
    for colour in ((31, 111, 178), (194, 80, 26)):
        assert (np.abs(drawn - colour) < 30).all(axis=2).sum() > 50
    assert page.errors == []


def test_the_original_is_shown_with_data(opened, serve, runs, tmp_path):
    rows = write_rows_file(tmp_path, 1)
    noise().save(tmp_path / "picture-0.png")
    page = opened(serve("view", runs[0], "--data", rows).url)
    page.until(lambda: any("/tiles/0/" in url for url in page.requests))
    page.until(lambda: page.locator(".boxes .box.crop").count() == 1)
    assert not page.locator(".note").is_visible()
