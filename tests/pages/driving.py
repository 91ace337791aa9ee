"""A page in a real browser, with the steps that the tests share."""

import io
import json
import time

import numpy as np
from PIL import Image


class Page:
    """A browser page with the steps that the tests share. It fails on errors of the page."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(viewport={"width": 1440, "height": 900}, **options)
        self.page = self.context.new_page()
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(url)

    def __getattr__(self, name):
        return getattr(self.page, name)

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def until(self, condition, seconds=30):
        """Waits by asking: the page's policy forbids what Playwright's own waiting would evaluate."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = condition()
            if found:
                return found
            self.page.wait_for_timeout(30)
        raise AssertionError(f"not within {seconds} seconds; errors of the page: {self.errors}")

    def until_saved(self):
        self.page.wait_for_timeout(60)
        self.until(lambda: self.text("#save-state") == "Saved")

    def shot(self):
        """The window as an array."""
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"), dtype=int)

    def extent(self, *colours):
        """Where pixels of these colours are on the screen, as (left, top, right, bottom), or None."""
        pixels = self.shot()
        stage = self.page.locator("#picture").bounding_box()
        near = np.zeros(pixels.shape[:2], dtype=bool)
        for colour in colours:
            near |= (np.abs(pixels - colour) < 40).all(axis=2)
        # Of the picture alone; its corners hold the tools and the readout.
        near[: int(stage["y"]) + 50] = near[int(stage["y"] + stage["height"]) - 70 :] = False
        near[:, : int(stage["x"])] = near[:, int(stage["x"] + stage["width"]) :] = False
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        if len(rows) == 0:
            return None
        return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]

    def settled_extent(self, *colours):
        """The same once the tiles are sharp: two looks agree."""

        def look():
            first = self.extent(*colours)
            self.page.wait_for_timeout(250)
            return first is not None and first == self.extent(*colours) and first

        return self.until(look)

    def line_of_the_box(self):
        """Where the only box is on the screen, once it is there and keeps still."""
        lines = "[...document.querySelectorAll('.boxes .box .line')]"
        look = f"{lines}.map(line => line.getBoundingClientRect().toJSON())"
        first = self.page.evaluate(look)
        self.page.wait_for_timeout(120)
        return len(first) == 1 and first == self.page.evaluate(look) and first[0]

    def drag(self, start, end):
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.page.mouse.move(*end)
        self.page.mouse.up()

    def close(self):
        self.context.close()


def last_change(rows):
    """The last line of the journal, whole or not there."""
    journal = rows.with_name(rows.name + ".annotations.jsonl")
    lines = journal.read_text().splitlines(keepends=True) if journal.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(whole[-1]) if whole else dict.fromkeys(("question", "answer", "targets", "status"))


def near(box, wanted):
    return np.abs(np.array(box) - wanted).max() <= 1
