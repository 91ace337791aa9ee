"""Nearly valid records: one value is replaced or missing. They give a row or a reason, never a crash."""

import copy

import pytest

from lfpc_trl.convert.drafts import as_row
from lfpc_trl.convert.formats import FORMATS
from lfpc_trl.convert.pictures import PictureStore
from lfpc_trl.errors import DataError
from tests.convert import published

BUILDERS = {
    "deepeyes": "deepeyes",
    "pixel_reasoner": "pixel-reasoner",
    "cof": "cof",
    "cof_json": "cof",
    "thinklite": "thinklite",
    "visualprobe": "visualprobe",
    "vlm_r1": "vlm-r1",
    "vlm_r1_lines": "vlm-r1",
    "vlm_r1_several": "vlm-r1",
    "vstar": "vstar",
    "treebench": "treebench",
    "coco": "coco",
    "label_studio": "label-studio",
    "rows": "rows",
}
OURS = {
    "vstar": {("id",), ("category",), ("image",)},
    "coco": {("id",), ("category",), ("absent",), ("instances",), ("instances", 0)},
}
"""Values that our own reader puts into a record, always in the same form."""
JUNK = [
    *(
        None,
        True,
        0,
        -1,
        7,
        1.5,
        float("nan"),
        float("inf"),
        10**400,
        "",
        " ",
        "A",
        "a.jpg",
        "[]",
        "[[1,2,3,4]]",
    ),
    *(
        "\udcff",
        "\0",
        "(A) x (B) y",
        r"\boxed{",
        "{",
        b"",
        b"\xff",
        [],
        [[]],
        [None],
        [1, 2, 3, 4],
        [[1, 2, 3, 4]],
    ),
    *(
        {},
        {"bytes": None, "path": None},
        {"bytes": b"x"},
        {"text": [1]},
        {"x": 1},
        [{}],
        [{"role": "user"}],
        ["A"],
    ),
]


def places(value, path=()):
    """Every place in a nested value."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


MISSING = object()


def changed(record, path, junk):
    record = copy.deepcopy(record)
    target = record
    for key in path[:-1]:
        target = target[key]
    if junk is MISSING:
        del target[path[-1]]
    else:
        target[path[-1]] = junk
    return record


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    found = {}
    for name, source in BUILDERS.items():
        place = folder / name
        place.mkdir()
        if name == "rows":
            published.add_picture(place / "a.jpg")
            row = {"id": "a", "question": "What?", "answer": ["A"], "choices": ["x", "y"], "image": "a.jpg"}
            rest = {"targets": [[[1, 1, 9, 9], [0, 0, 20, 20]]], "shown_size": [56, 28], "x_note": "n"}
            path = published.write_lines(place / "rows.jsonl", row | rest)
        else:
            path = getattr(published, name)(place)
        records = [record for _, record in FORMATS[source].read(path) if isinstance(record, dict)]
        store = PictureStore(folder / "out", path if path.is_dir() else path.parent)
        found[name] = (FORMATS[source], records, store, folder / "out")
    return found


@pytest.mark.parametrize("name", BUILDERS)
def test_one_odd_value_gives_a_row_or_a_reason(base, name):
    form, records, store, folder = base[name]
    crashes = set()
    for record in records:
        for path in places(record):
            if not path or path in OURS.get(name, ()):
                continue
            odd = [changed(record, path, junk) for junk in JUNK]
            for each in odd if name in OURS else [*odd, changed(record, path, MISSING)]:
                try:
                    as_row(form.convert(each), store, folder, layout=form.layout or "xyxy", name="n-1")
                except DataError:
                    pass
                except Exception as error:
                    crashes.add((path, repr(error)))
    assert crashes == set()
