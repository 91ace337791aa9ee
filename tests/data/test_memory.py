"""Memory of the commands that read rows: it grows by the rows, never by their pictures."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

ROOT = Path(__file__).parents[2]
COUNTS = {"rows": (2_000, 20_000)}
"""Rows of the smaller and the larger file."""
ROW = 4_000
"""Bytes that a row may take: about three times what it does take, for what an allocator holds back."""
PICTURE = 8_000
"""Bytes of each picture at least: those that were kept would take twice what the rows may."""

PROGRAM = """
import json, resource, sys
from lfpc_trl import cli
from lfpc_trl.data.rows import read_rows, with_shown_tokens
from lfpc_trl.pictures import originals

# Decoded pictures are kept up to a bound, 1 GiB; with the bound out of the way what grows can be seen.
originals._PICTURES = originals.PictureCache(1 << 20)

def run(words):
    if words[0] == "rows":  # what `lfpc train`, `lfpc eval` and `lfpc select-resolution` hold
        rows = with_shown_tokens(read_rows(words[1], require_targets=True), 4, factor=28)
        print(len(rows), "rows")
    else:
        assert cli.main(words) in (0, None)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

few, many = json.loads(sys.argv[1])
run(few)
before = peak()
run(many)
print("grown by", peak() - before)
"""


def write(path: Path, rows: int) -> None:
    """Rows with a picture of their own inside the file, 100 to a row group."""
    noise = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, 100):
        records = []
        for number in range(start, start + 100):
            file = io.BytesIO()
            pixels = noise.integers(0, 256, (52, 52, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, "PNG", compress_level=0)
            assert file.tell() > PICTURE
            records.append(
                {
                    "question": f"What does sign {number} say?",
                    "answer": "KR",
                    "image": {"bytes": file.getvalue(), "path": "a.png"},
                    "targets": [[4, 4, 20, 20], [2, 2, 40, 40]],
                }
            )
        table = pa.Table.from_pylist(records)
        writer = writer or parquet.ParquetWriter(path, table.schema, use_dictionary=False)
        writer.write_table(table)
    assert writer is not None
    writer.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    for count in {count for both in COUNTS.values() for count in both}:
        write(folder / f"{count}.parquet", count)
    return folder


WORDS = {
    "rows": ["rows", "{file}"],
}


@pytest.mark.slow
@pytest.mark.parametrize("command", WORDS)
def test_more_rows_take_the_memory_of_rows_and_none_for_their_pictures(command, files):
    few, many = COUNTS[command]
    asked = [
        [word.format(file=files / f"{count}.parquet") for word in WORDS[command]] for count in (few, many)
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "integrations")])}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(asked)], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    grown = int(ran.stdout.splitlines()[-1].removeprefix("grown by "))
    print(f"{command}: {grown / (many - few):.0f} bytes for each row more")
    assert grown < ROW * (many - few)
