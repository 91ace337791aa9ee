"""Every command of the tutorials about asking is run, in the order of the page."""

import io
import json
import shutil
from importlib import resources

import pytest

from lfpc_trl import cli
from lfpc_trl.demo import world
from tests.packaging.test_docs import DOCS, commands
from tests.runs.test_export import make_run
from tests.stub_server import looks_once, stub_server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::ResourceWarning")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A finished demo in small: in the place of the model of its second stage the shipped one."""
    with resources.as_file(resources.files("lfpc_trl.demo") / "warm") as shipped:
        shutil.copytree(shipped, tmp_path / "model")
    demo = tmp_path / "lfpc-demo"
    make_run(demo / "stage2", tmp_path / "model", tmp_path / "model", stage=2)
    list(world.make_pictures(demo / "data", 4, seed=0, photos=world.UNSEEN_PHOTOS, name="test"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of(words, name):
    """The value of an option."""
    return words[words.index(name) + 1]


def test_from_a_trained_model_to_an_answer(folder, capsys, monkeypatch):
    [ask, keyboard, page, export] = commands(DOCS / "tutorial-from-model-to-answer.md")
    assert cli.main(ask) == 0
    *crops, answer, about = capsys.readouterr().out.splitlines()
    assert all(line.startswith("crop ") for line in crops)
    assert answer.startswith("answer: ")
    assert about.startswith("picture shown as 252 x 168, 54 tokens; ")
    kept = json.loads((folder / of(ask, "--save") / "1.json").read_text())
    assert len(kept["looks"]) == len(crops) == len(list((folder / "crops").glob("*.png")))
    monkeypatch.setattr("sys.stdin", io.StringIO("What does the red sign say?\n"))
    assert cli.main(keyboard) == 0
    assert capsys.readouterr().out == answer.removeprefix("answer: ") + "\n"
    served = []
    monkeypatch.setattr("lfpc_trl.html.server.serve", lambda *app: served.append(app))
    assert cli.main(page) == 0
    assert len(served) == 1
    capsys.readouterr()
    assert cli.main(export) == 0
    assert "vllm serve exported --enable-auto-tool-choice --tool-call-parser" in capsys.readouterr().out


def test_a_big_model_behind_an_endpoint(folder, capsys):
    pytest.importorskip("openai", reason="the client of such servers is not installed")
    page = DOCS / "tutorial-endpoint.md"
    [ask, evaluate, select] = commands(page)
    with stub_server(looks_once) as stub:
        for words in (ask, evaluate, select):
            words[words.index("--endpoint") + 1] = stub.url
            capsys.readouterr()
            assert cli.main(words) == 0, words[0]
            if words is evaluate:
                said = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in said] == ["tokens:", "tables:", "page:"]
    assert "\n".join(said[1:]) in page.read_text(encoding="utf-8")
    assert (folder / of(select, "--output")).is_file()
