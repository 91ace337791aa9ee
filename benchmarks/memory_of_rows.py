"""Memory while rows are read whose pictures are inside one Parquet file: `memory_of_rows.py ROWS`.

Prints the size of the file and the growth of the peak of this process while all rows are read and checked.
"""

import io
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from lfpc_trl.data.rows import read_rows


def write(path: Path, rows: int) -> None:
    """A file of `rows` rows, 100 to a row group, each with a picture of its own of about 30 kB."""
    noise = np.random.default_rng(0)
    record = {"question": "What?", "answer": "KR", "image": {"bytes": b"", "path": ""}}
    with parquet.ParquetWriter(path, pa.Table.from_pylist([record]).schema, use_dictionary=False) as writer:
        for start in range(0, rows, 100):
            file = io.BytesIO()
            Image.fromarray(noise.integers(0, 256, (100, 100, 3), dtype=np.uint8)).save(file, "PNG")
            image = {"bytes": file.getvalue(), "path": "a.png"}
            group = [record | {"image": image} for _ in range(min(100, rows - start))]
            writer.write_table(pa.Table.from_pylist(group))


def main() -> None:
    """Write, read, print."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write(path, 100)
        read_rows(path)  # what is loaded once
        write(path, int(sys.argv[1]))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows = read_rows(path)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(
            f"{len(rows)} rows, file {path.stat().st_size / 1e6:.0f} MB, peak grown by {grown / 1e3:.0f} MB"
        )


if __name__ == "__main__":
    main()
