"""Nested lists to flat arrays: what is read through Python's C API, and that reading it leaves no trace."""

import ctypes
import gc
import sys
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import config, types

from lfpc_rewards import _capi, _packing
from lfpc_rewards._packing import four_numbers, pack_rows

BOX = [1, 2.5, -3, 4]


class Named(NamedTuple):
    x0: float
    y0: float
    x1: float
    y1: float


class Box(list):
    pass


class Number(float):
    pass


class Silent(float):
    def __float__(self):
        raise AssertionError("foreign code was run")


class Half:
    def __float__(self):
        return 0.5


class Loud:
    """Calls as foreign code would: whatever is asked of it, it empties the list that is being read."""

    def __init__(self, rows):
        self.rows = rows

    def __float__(self):
        self.rows.clear()
        gc.collect()
        return 7.0


def packed(rows, numbers_of=four_numbers):
    flat, starts = pack_rows(rows, numbers_of)
    return flat.reshape(-1, 4).tolist(), starts.tolist()


@pytest.fixture(params=[True, False], ids=["with the GIL", "without the GIL"])
def either_way(request, monkeypatch):
    monkeypatch.setattr(_packing, "HAS_GIL", request.param)


@pytest.mark.parametrize(
    ("box", "numbers"),
    [
        (BOX, [1, 2.5, -3, 4]),
        (tuple(BOX), [1, 2.5, -3, 4]),
        ([float("inf"), float("-inf"), -0.0, 1e-320], [float("inf"), float("-inf"), -0.0, 1e-320]),
        ([2**53 + 1, 2**63 - 1, -(2**63), 2**62 + 1], [2.0**53, 2.0**63, -(2.0**63), 2.0**62]),
        ([2**63, -(2**63) - 1, 2**64, 10**300], [2.0**63, -(2.0**63), 2.0**64, 1e300]),
        (Box(BOX), BOX),
        (Named(*BOX), BOX),
        (np.array(BOX), BOX),
        ([np.float64(1), np.float32(2.5), np.int64(-3), Number(4)], BOX),
        ([Half(), Decimal("0.25"), 0, 0], [0.5, 0.25, 0, 0]),
    ],
)
def test_a_box_of_four_numbers_is_read(either_way, box, numbers):
    assert packed([[BOX], [], (box, BOX)]) == ([BOX, numbers, BOX], [0, 1, 1, 3])


@pytest.mark.parametrize(
    "box",
    [
        None, 7, 1.5, "1234", b"1234"[:3], [], [1, 2, 3], [1, 2, 3, 4, 5], [1, 2, 3, None], [1, 2, 3, "4"],
        [1, 2, 3, [4]], [1, 2, 3, 10**400], [1, 2, 3, 4j], [[1, 2, 3, 4]], object(),
        np.array(5), np.array([True] * 4), np.array(["1"] * 4), np.zeros((4, 1)),
    ],
)  # fmt: skip
def test_any_other_box_holds_nan(either_way, box):
    flat, starts = pack_rows([[BOX, box], [BOX]], four_numbers)
    assert np.isnan(flat.reshape(-1, 4)).any(-1).tolist() == [False, True, False]
    assert starts.tolist() == [0, 2, 3]


def test_true_is_no_number(either_way):
    flat, _ = pack_rows([[[0, 0, True, 9]]], four_numbers)
    assert np.isnan(flat).tolist() == [False, False, True, False]


def test_usual_boxes_never_wait_for_python():
    def refuse(box):
        raise AssertionError(box)

    rows = [[BOX, tuple(BOX)], (), ([0, 0.5, 2**62, -1e300], [np.float64(7), Number(8), Silent(9), 1])]
    assert packed(rows, refuse) == ([BOX, BOX, [0, 0.5, 2.0**62, -1e300], [7, 8, 9, 1]], [0, 2, 2, 4])


@pytest.mark.parametrize("row", [None, 7, "x", np.zeros((1, 4)), Box([BOX]), {1: 2}])
def test_a_row_that_is_neither_list_nor_tuple_is_refused(either_way, row):
    assert pack_rows([[BOX], row], four_numbers) is None


def test_a_reader_that_gives_none_ends_the_packing(either_way):
    assert pack_rows([[[1, 2]]], lambda _: None) is None


def test_rows_may_be_any_sequence(either_way):
    for rows in ([[BOX]], ([BOX],), Box([[BOX]]), {"row": [BOX]}.values()):
        assert packed(rows) == ([BOX], [0, 1])
    assert packed([]) == packed(()) == ([], [0])


def test_a_number_that_runs_foreign_code_harms_nothing(either_way):
    rows = [[BOX], [BOX, [0, 0, 1]], [BOX]]
    rows[1][1].append(Loud(rows))
    assert packed(rows) == ([BOX, BOX, [0, 0, 1, 7], BOX], [0, 1, 3, 4])
    assert rows == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["1", 10**400, np.float32(1)]),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=30,
)


@given(st.lists(anything, max_size=5))
def test_both_ways_to_read_agree_about_anything(rows):
    results = []
    for has_gil in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_packing, "HAS_GIL", has_gil)
            results.append(pack_rows(rows, four_numbers))
    compiled, plain = results
    assert (compiled is None) == (plain is None)
    if plain is not None:
        for a, b in zip(compiled, plain, strict=True):
            np.testing.assert_array_equal(a, b)


def test_reading_keeps_no_reference_and_drops_none():
    number, big, odd = 1234.5, 2**70, object()
    box = [number, 12345678, big, odd]
    row = (box, [number] * 4)
    rows = [row, row]
    things = [number, big, odd, box, row, rows, list, tuple, float, int, object]
    pack_rows(rows, four_numbers)  # compiles
    before = [sys.getrefcount(thing) for thing in things]
    for _ in range(100):
        pack_rows(rows, four_numbers)
    assert [sys.getrefcount(thing) for thing in things] == before


ODD = [
    None,
    "7",
    2**70,
    -(2**70),
    0.5,
    7,
    -2,
    True,
    float("nan"),
    Number(2),
    Silent(3),
    Half(),
    [1],
    np.int64(4),
]


def test_api_functions_are_external_to_kernels_and_ctypes_without_jit(monkeypatch):
    monkeypatch.setattr(config, "DISABLE_JIT", 0)
    compiled = _capi.python_api("PyList_Size", types.intp, types.intp)
    assert compiled.symbol == "PyList_Size"
    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    plain = _capi.python_api("PyList_Size", types.intp, types.intp)
    three = [1, 2, 3]
    assert plain(id(three)) == 3
    assert isinstance(plain, ctypes._CFuncPtr)
