"""`lfpc annotate` in a real Firefox: drawn by mouse and finger, undone, finished, found on the disk.

Not two fingers: Firefox makes pointer events of the first finger alone when it is driven.
"""

import pytest

from tests.pages.conftest import SIZE, write_rows_file
from tests.pages.driving import last_change, near
from tests.pages.firefox import NAMES, Firefox, find_firefox

pytestmark = pytest.mark.browser

CONTROL, ESCAPE, ENTER = "\ue009", "\ue00c", "\ue007"  # as WebDriver writes them


@pytest.fixture
def firefox(tmp_path):
    program = find_firefox()
    if program is None:
        pytest.skip(f"no Firefox: none of {', '.join(NAMES)} is installed")
    (tmp_path / "profile").mkdir()
    browser = Firefox(program, tmp_path / "profile")
    yield browser
    browser.kill()


def test_a_row_is_annotated_in_firefox(firefox, serve, tmp_path):
    rows = write_rows_file(tmp_path, 2)
    firefox.open(serve("annotate", rows).url)
    firefox.until("document.querySelector('#row-name').textContent === 'q0'")
    firefox.until("document.querySelector('#scale').textContent")
    rect = "document.querySelector('#picture').getBoundingClientRect()"
    stage = firefox.evaluate(f"{rect}.toJSON()")
    scale = min(stage["width"] / SIZE[0], stage["height"] / SIZE[1])
    x, y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2

    def saved():
        firefox.until("document.querySelector('#save-state').textContent === 'Saved'")
        return last_change(rows)

    def count(boxes):
        firefox.until(f"document.querySelectorAll('#regions li').length === {boxes}")
        return saved()["targets"]

    def around(reach):
        return [middle + side * reach / scale for side in (-1, 1) for middle in (SIZE[0] / 2, SIZE[1] / 2)]

    firefox.drag("mouse", [(x - 50, y - 50), (x, y), (x + 50, y + 50)])
    [[inner]] = count(1)
    assert near(inner, around(50)), inner
    # The next one begins 4 px outside its corner, by a finger.
    firefox.drag("touch", [(x - 54, y - 54), (x, y), (x + 60, y + 60)])
    [[same, _]] = count(2)
    assert same == inner
    firefox.press(CONTROL, "z")
    assert count(1) == [[inner]]
    firefox.press(CONTROL, "y")
    count(2)
    firefox.press("q")
    firefox.type("Seen in Firefox")
    firefox.press(ESCAPE)
    firefox.until("document.querySelector('#row-facts').textContent.includes('revision')")
    firefox.press("i")
    firefox.until("document.querySelector('#row-name').textContent === 'q0#2'")
    firefox.press(ESCAPE)
    firefox.press(",")
    firefox.until("document.querySelector('#row-name').textContent === 'q0'")
    assert firefox.evaluate("document.querySelector('#question').value").endswith("Seen in Firefox")
    firefox.press(ENTER)
    firefox.until("document.querySelector('#progress-text').textContent === '1 of 3 done, 2 left'")
    assert saved()["status"] == "done"
