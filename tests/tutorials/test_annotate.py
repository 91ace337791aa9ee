"""Forty photographs annotated to a stage-2 data set: the page's commands, the work through its server."""

import json
import shutil
import urllib.request
from importlib import resources

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lfpc_trl.data.rows import read_rows
from tests.pages.conftest import Server, noise
from tests.tutorials.following import follow


class Annotator:
    """Does what the page does: asks for a row, posts its content with the revision that it saw."""

    def __init__(self, url):
        self.root = url.partition("/?")[0]
        self.browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self.browser.open(url).close()

    def ask(self, path, body=None):
        headers = {"origin": self.root, "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with self.browser.open(urllib.request.Request(self.root + path, data, headers)) as answer:
            return json.load(answer)

    def numbers(self):
        """The number of every row by its id."""
        items = self.ask("/api/project")["items"]
        return {item["id"]: number for number, item in enumerate(items)}

    def save(self, number, **content):
        revision = self.ask(f"/api/items/{number}")["revision"]
        body = {"base": revision, "annotator": "ann", "seconds": 40.0, "content": content}
        self.ask(f"/api/items/{number}", body)

    def add(self, number):
        return self.ask(f"/api/items/{number}/questions", {"annotator": "ann"})["number"]


def photograph(path, number):
    """Writes a picture of coloured ground with one sign; what somebody types and draws who sees it."""
    random = np.random.default_rng(number)
    image = noise((6, 4), seed=number).resize((960, 640), Image.Resampling.BICUBIC)
    x, y = int(random.integers(40, 700)), int(random.integers(40, 500))
    board, words = [x, y, x + 180, y + 80], [x + 30, y + 20, x + 150, y + 60]
    draw = ImageDraw.Draw(image)
    draw.rectangle([x, y, x + 179, y + 79], fill="white")
    text = "".join(random.choice(list("ABCDEFGHKLMNPRSTUVXYZ"), 2))
    draw.text((x + 45, y + 22), text, fill="black", font_size=32)
    image.save(path)
    targets = [[words, board]]
    return {"question": "What does the sign say?", "answer": [text], "targets": targets, "status": "done"}


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_page_on_forty_photographs_can_be_followed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photographs").mkdir()
    seen = [photograph(tmp_path / "photographs" / f"{number:02}.jpg", number) for number in range(40)]
    (tmp_path / "photographs" / "notes.txt").touch()
    shutil.copytree(resources.files("lfpc_trl.demo") / "warm", tmp_path / "lfpc-demo" / "warm")

    def annotate():
        server = Server("annotate", "photographs")
        try:
            page = Annotator(server.url)
            numbers = page.numbers()
            assert len(numbers) == 40
            for number, content in zip(numbers.values(), seen, strict=True):
                page.save(number, **content)
            page.save(page.add(0), **seen[0] | {"question": "Which letters are on the board?"})
            page.save(1, question="What is this?", answer=["a street"], without_boxes=True, status="done")
            page.save(2, status="skipped", note="blurred")
        finally:
            server.kill()

    commands = follow("how-to/annotate-forty-photographs.md", capsys, {("annotate", "photographs"): annotate})
    assert [words[0] for words in commands] == [
        *("annotate", "annotate", "annotate", "check-data", "split", "train")
    ]
    rows = read_rows("boxes.jsonl", require_targets=True)
    assert [row.id.partition(".")[0] for row in rows[:3]] == ["00", "00", "03"]
    for row, content in zip(rows[2:], seen[3:], strict=True):
        assert [region.tolist() for region in row.regions] == content["targets"]
        assert list(row.answer) == content["answer"]
    parts = {name: read_rows(f"parts/{name}.jsonl") for name in ("train", "test")}
    assert sum(map(len, parts.values())) == 39
    assert not {row.image for row in parts["train"]} & {row.image for row in parts["test"]}
    [line] = (tmp_path / "stage2" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 1
