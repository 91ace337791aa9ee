"""Questions about three pictures, driven through every command that reads rows."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from PIL import Image
from pyarrow import parquet
from starlette.testclient import TestClient

from lfpc_trl import cli
from lfpc_trl.data.rows import as_record, read_rows
from lfpc_trl.errors import DataError
from lfpc_trl.html.server import Access
from lfpc_trl.locus.cues import boxes_of_rows, check_cue
from lfpc_trl.locus.evaluation import suppress_context
from lfpc_trl.runs.directory import read_metrics
from lfpc_trl.runs.reading import Run
from lfpc_trl.runs.trajectories import read_trajectories
from lfpc_trl.view.app import make_viewer
from tests import tiny

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default::ResourceWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows about three pictures, one about one, and a model that crops the last picture it is shown."""
    folder = tmp_path_factory.mktemp("several")
    several = tiny.make_several(folder, 3).read_text()
    single = tiny.make_rows(folder, 1).read_text().replace('"q0"', '"single"')
    (folder / "rows.jsonl").write_text(several + single)
    tiny.make_model(folder / "model", "qwen2_5_vl", chat_template=tiny.COMPACT)
    tiny.teach(folder / "model", read_rows(folder / "rows.jsonl"), steps=90)
    return folder


@pytest.fixture(scope="module")
def trained(folder):
    """Stage 2, two steps over all rows."""
    settings = {
        "steps": 2,
        "prompts_per_step": 4,
        "prompts_per_update": 4,
        "learning_rate": 1e-3,
        "crop_tokens": 8,
        "response_tokens": 60,
        "trajectory_tokens": 200,
        "threads": 1,
    }
    options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    assert lfpc("train", folder, *options, config="cpu-stage2", output="run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def evaluated(folder):
    asked = ("--budget", "12", "--crop-tokens", "8", "--max-new-tokens", "60", "--max-turns", "2")
    assert lfpc("eval", folder, *asked, "--threads", "1", output="evaluation") == 0
    return folder / "evaluation"


def lfpc(command, folder, *options, data="rows.jsonl", **places):
    given = {"model": folder / "model", "data": folder / data}
    given |= {name: value if name == "config" else folder / value for name, value in places.items()}
    words = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    return cli.main([command, *words, *options])


def test_check_data(folder, capsys):
    assert lfpc("check-data", folder) == 0
    told = capsys.readouterr().out
    assert "pictures: 10" in told  # three times three, and one
    assert "rows with several pictures: 3 3" in told


def test_check_data_names_a_picture_that_is_missing(folder, capsys):
    record = json.loads((folder / "several.jsonl").read_text().splitlines()[0])
    record["images"][2] = "gone.png"
    tiny.write_records(folder / "bad.jsonl", [record])
    assert lfpc("check-data", folder, data="bad.jsonl") == 2
    assert "bad.jsonl row 1: image must exist" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("to", "suffix"), [("verl", ".parquet"), ("label-studio", ".json"), ("rows", ".jsonl")]
)
def test_convert_and_back(folder, to, suffix, tmp_path):
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.jsonl"
    rows = folder / "rows.jsonl"
    assert (
        cli.main(["convert", "--from", "rows", "--to", to, "--input", str(rows), "--output", str(there)]) == 0
    )
    assert cli.main(["convert", "--from", to, "--input", str(there), "--output", str(back)]) == 0

    def plain(path):
        names = ("image", "images")
        return [
            {name: value for name, value in as_record(row).items() if name not in names}
            | {"sizes": [picture.size for picture in row.pictures]}
            for row in read_rows(path)
        ]

    assert plain(back) == plain(rows)


def test_select_resolution_chooses_one_level_for_all_pictures_of_a_row(folder, capsys):
    asked = ("--finest", "48", "--coarsest", "12", "--max-new-tokens", "8")
    assert lfpc("select-resolution", folder, *asked, output="selected.jsonl") == 0
    selected = read_rows(folder / "selected.jsonl")
    by_level = {
        0: ((224, 168), (112, 112), (168, 224)),
        1: ((140, 112), (112, 112), (112, 140)),
        2: ((112, 84), (84, 84), (84, 84)),
    }
    for row in selected[:3]:
        assert row.shown_sizes == by_level[row.extras["selected_level"]]
    assert "visual tokens on average" in capsys.readouterr().out
    # Every answer is known: nothing is asked again.
    (folder / "selected.jsonl").unlink()
    assert lfpc("select-resolution", folder, *asked, output="selected.jsonl") == 0
    again = read_rows(folder / "selected.jsonl")
    assert [row.shown_sizes for row in again] == [row.shown_sizes for row in selected]


def test_train_says_before_what_the_model_will_see(folder, capsys):
    assert lfpc("train", folder, "--dry-run", "--crop_tokens", "8", config="cpu-stage2", output="never") == 0
    told = capsys.readouterr().out
    for number, size in ((1, "224 x 168"), (2, "112 x 112"), (3, "196 x 252")):
        assert f"Image {number}: " in told
        assert f"of {size})" in told


def test_train_crops_the_pictures_that_the_model_names(trained):
    lines = read_metrics(trained)
    assert sum(line["tool_calls"] for line in lines) > 1
    assert all("failed_calls/image" in line for line in lines)
    trajectories = read_trajectories(trained)
    several = [each for each in trajectories if each.images]
    assert {len(each.images) for each in several} == {3}
    assert {number for each in several for number in each.box_images} == {3}
    for each in several:
        assert len(each.thumbnails) == 3 + len(each.boxes)
        assert each.target_images == (3, 1)


def test_eval_asks_under_every_condition(evaluated):
    [file] = (evaluated / "trajectories").glob("*.parquet")
    rows = parquet.read_table(file).to_pylist()
    several = [row for row in rows if row["row_id"] != "single"]
    assert {row["condition"] for row in several} == {
        *("predicted", "target", "noise", "elsewhere", "no_picture", "no_tool")
    }
    assert any(row["box_images"] == [3] for row in several)
    assert {row["shown_tokens"] for row in several} == {12 + 9 + 9}
    assert {row["shown_tokens"] for row in rows if row["row_id"] == "single"} == {12}
    assert list(evaluated.glob("*.html"))


def test_compare(evaluated, folder, capsys):
    named = [f"{name}={evaluated}" for name in ("one", "other")]
    assert cli.main(["compare", *named, "--output", str(folder / "compared")]) == 0
    assert list((folder / "compared").glob("*.html"))


def test_view_shows_each_picture_with_its_own_boxes(evaluated, folder):
    access = Access.listening_on("127.0.0.1")
    app = make_viewer([Run(evaluated)], access, rows=read_rows(folder / "rows.jsonl"))
    client = TestClient(app, base_url="http://127.0.0.1", follow_redirects=True)
    client.get("/", params={"token": access.token})
    listed = client.get("/api/runs/0/list").json()["page"]
    for each in listed:
        shown = client.get(f"/api/runs/0/trajectories/{each['position']}").json()
        count = 1 if each["row_id"] == "single" else 3
        assert len(shown["pictures"]) == count
        assert len(shown["box_images"]) == len(shown["boxes"])
        assert shown["thumbnails"] >= count
        for picture in shown["pictures"]:
            number = picture["original"]["number"]
            assert client.get(f"/tiles/{number}/0/0/0").status_code == 200
    numbers = {
        picture["original"]["number"]
        for each in listed
        for picture in client.get(f"/api/runs/0/trajectories/{each['position']}").json()["pictures"]
    }
    assert numbers == set(range(10))


def test_locus_finds_the_boxes_of_every_picture(folder):
    sources = list(boxes_of_rows(read_rows(folder / "several.jsonl")))
    assert {(source.image.name[1:], source.size) for source in sources} == {
        ("-1.png", (224, 168)),
        ("-3.png", (196, 252)),
    }
    row = read_rows(folder / "several.jsonl")[0]
    with pytest.raises(DataError, match="a cue must have one picture, got 3"):
        check_cue(row)
    [blacked] = suppress_context([row], folder / "blacked")
    assert [picture.size for picture in blacked.pictures] == [picture.size for picture in row.pictures]
    kept = [Image.open(picture.image).getbbox() for picture in blacked.pictures]
    assert kept == [(40, 40, 80, 70), None, (90, 140, 180, 220)]


def test_the_section_of_the_tutorial_runs(tmp_path, monkeypatch):
    import torch

    from lfpc_trl.demo import world

    torch.set_num_threads(1)
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    section = page[page.index("## 5. Several pictures") :]
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "lfpc-demo" / "data"
    list(world.make_pictures(data, 2, seed=1, photos=world.TRAINING_PHOTOS, name="stage2"))
    shutil.copytree(Path(world.__file__).parent / "warm", tmp_path / "lfpc-demo" / "warm")
    [example] = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    exec(compile(example, "tutorial.md", "exec"), {})
    [block] = re.findall(r"^```bash\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [words[1] for words in commands] == ["check-data", "select-resolution", "train", "eval"]
    for words in commands:
        assert cli.main(words[1:]) == 0, words
    pairs = read_rows(data / "pairs.jsonl")
    assert all(len(row.pictures) == 2 and row.pictures[0].image != row.pictures[1].image for row in pairs)
    assert [each.images for each in read_trajectories(tmp_path / "pairs-run")] != []
