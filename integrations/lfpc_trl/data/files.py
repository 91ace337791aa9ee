"""The files of a data set: one file, the matches of a pattern, or a folder as written by libraries.

No code of a folder is executed and nothing is downloaded.
"""

import glob
import re
from collections.abc import Iterator
from pathlib import Path

from lfpc_trl.errors import DataError, did_you_mean_beside, one_line
from lfpc_trl.json_values import read_json

SUFFIXES = (".jsonl", ".json", ".parquet", ".arrow", ".csv", ".tsv", ".tar")
_METADATA = tuple(f"metadata{suffix}" for suffix in (".jsonl", ".csv", ".parquet"))
"""The file beside the pictures of an `imagefolder`."""
_OWN_FILES = ("dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json")
"""Metadata files of a folder, which hold no rows."""
_PART = re.compile(r"([-_.]?)\d+(?:-of-\d+)?$")
"""The suffix of a shard's name, such as `train-00000-of-00003`."""


def data_files(path: str | Path) -> list[Path]:
    """The files of a data set, in order.

    Args:
        path: a file; a pattern such as `data/train-*.parquet`; or a folder: written by `save_to_disk`,
            downloaded from the hub, of pictures with a `metadata` file (`imagefolder`), or of shards.

    Raises:
        DataError: there is none, or several splits or kinds, of which one must be named.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if not path.exists() and glob.has_magic(str(path)):
        found = [Path(each) for each in sorted(glob.glob(str(path)))]  # noqa: PTH207 - the pattern may be absolute
        if not found:
            raise DataError(f"{path}: no file matches")
        return [each for file in found for each in data_files(file)]
    if not path.exists():
        raise DataError(f"{path}: no such file{did_you_mean_beside(path)}")
    if path.suffix not in SUFFIXES or not path.is_file():
        raise DataError(f"{path}: data must be a folder or a file ({', '.join(SUFFIXES)})")
    return [path]


def _of_folder(folder: Path) -> list[Path]:
    if (folder / "dataset_dict.json").is_file():
        splits = [each.name for each in folder.iterdir() if (each / "state.json").is_file()]
        return _one_of(folder, {name: [folder / name] for name in sorted(splits)})
    if (folder / "state.json").is_file():
        return _saved_to_disk(folder)
    for name in _METADATA:
        if (folder / name).is_file():
            return [folder / name]
    files = [each for each in _visible(folder) if each.suffix in SUFFIXES and each.name not in _OWN_FILES]
    metadata = [each for each in files if each.name in _METADATA]
    if metadata:  # an imagefolder with a folder per split
        return _one_of(folder, {str(each.parent.relative_to(folder)): [each] for each in metadata})
    if not files:
        raise DataError(
            f"{folder}: no data files ({', '.join(SUFFIXES)}), and no metadata file beside pictures"
        )
    groups: dict[str, list[Path]] = {}
    for file in files:
        groups.setdefault(_group(folder, file), []).append(file)
    return _one_of(folder, groups)


def _visible(folder: Path) -> Iterator[Path]:
    """Files of a folder and its subfolders by name, without hidden ones such as download caches."""
    for each in sorted(folder.rglob("*")):
        if each.is_file() and not any(part.startswith(".") for part in each.relative_to(folder).parts):
            yield each


def _saved_to_disk(folder: Path) -> list[Path]:
    try:
        names = [each["filename"] for each in read_json(folder / "state.json")["_data_files"]]
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{folder}: state.json must name the data files ({one_line(error)})") from None
    files = [folder / str(name) for name in names]
    for file in files:
        if file.parent != folder or not file.is_file():
            raise DataError(f"{folder}: state.json names {str(file)!r}, which does not exist")
    return files


def _group(folder: Path, file: Path) -> str:
    """The pattern of the shards of one set of rows, whose names differ in their number."""
    part = _PART.search(file.stem)
    name = file.name if part is None else f"{file.stem[: part.start()]}{part[1]}*{file.suffix}"
    return str(file.parent.relative_to(folder) / name)


def _one_of(folder: Path, groups: dict[str, list[Path]]) -> list[Path]:
    if len(groups) == 1:
        [files] = groups.values()
        return [each for file in files for each in (data_files(file) if file.is_dir() else [file])]
    names = sorted(groups)
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise DataError(
        f"{folder}: holds several sets of rows ({shown}); name one, such as '{folder / names[0]}'"
    )
