"""A data set as the hub has it, trained on by mapping alone: the page's commands, in their order."""

import json
import shutil
from importlib import resources

import pyarrow as pa
import pytest
from pyarrow import parquet

from lfpc_trl.data.columns import columns_of
from lfpc_trl.data.rows import read_rows
from lfpc_trl.synthesize.run import Settings, synthesize
from tests.tutorials.following import follow


def hub_data(folder, made, count):
    """A data set as the hub has them: two Parquet files, other names, corners and sizes, pictures inside."""
    settings = Settings(size=(960, 640), target_pixels=(8, 10), kinds=("single",), seed=3)
    records = []
    for row in read_rows(synthesize(made, count, settings)):
        x1, y1, x2, y2 = row.regions[0][0].tolist()
        records.append(
            {
                "problem": row.question,
                "solution": row.answer[0],
                "images": [{"bytes": row.image.read_bytes(), "path": None}],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "source": "made",
            }
        )
    (folder / "data").mkdir(parents=True)
    for i, part in enumerate((records[: count // 2], records[count // 2 :])):
        parquet.write_table(
            pa.Table.from_pylist(part), folder / "data" / f"train-0000{i}-of-00002.parquet", row_group_size=4
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_the_page_on_a_hub_data_set_can_be_followed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    hub_data(tmp_path / "street-signs", tmp_path / "made", 12)
    shutil.rmtree(tmp_path / "made")
    shutil.copytree(resources.files("lfpc_trl.demo") / "warm", tmp_path / "lfpc-demo" / "warm")
    commands = follow("how-to/train-on-a-hub-data-set.md", capsys)
    assert [words[0] for words in commands] == [
        *("check-data", "check-data", "split", "train", "train", "train", "eval")
    ]
    # What was trained on in the end is what a reading by hand gives.
    mapping = columns_of(["question=problem", "answer=solution", "image=images.0", "targets=bbox:xywh"])
    rows = read_rows("street-signs", columns=mapping)
    parts = [row for name in ("train", "test") for row in read_rows(f"parts/{name}.jsonl")]
    assert {row.id for row in rows} == {row.id for row in parts}
    for run in ("stage1", "stage2", "all-rows"):
        [line] = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["step"] == 1
    assert (tmp_path / "evaluation" / "tables.md").exists()
