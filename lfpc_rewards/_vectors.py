"""Characters, many at once, by vector instructions that no plain loop of Numba's becomes.

Each of the public functions is its plain definition, for Python. In kernels Numba puts `overload`s in their
place; the tests hold the two equal.
"""
# ruff: noqa: ARG001 - Numba matches the names of arguments that only types are asked of

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload
from numpy.typing import NDArray

from lfpc_rewards._jit import part

Codes: TypeAlias = NDArray[np.uint8]
Words: TypeAlias = NDArray[np.uint64]

BLOCK = 64
"""Characters that `places_of` compares: one for each bit of its result."""

LANES = 16
"""Words that `same_words` compares."""

_WORD = ir.IntType(64)
_BLOCK = ir.VectorType(ir.IntType(8), BLOCK)
_LANES = ir.VectorType(_WORD, LANES)


def places_of(code: int, codes: Codes, first: int) -> np.uint64:
    """A bit for each of the `BLOCK` characters from `first` on that is `code`; none behind the end."""
    return _bits(codes[first : first + BLOCK] == code)


def lowest(bits: np.uint64) -> int:
    """The place of the lowest bit that is set; there must be one."""
    return (int(bits) & -int(bits)).bit_length() - 1


def eight_at(codes: Codes, first: int) -> np.uint64:
    """Eight characters as one number, the first one in its lowest byte; zeros behind the end."""
    return np.uint64(int.from_bytes(codes[first : first + 8].tobytes(), "little"))


def same_words(word: np.uint64, words: Words, masks: Words) -> np.uint64:
    """A bit for each of the first `LANES` words that is `word` where its mask has ones."""
    return _bits((word & masks.ravel()[:LANES]) == words.ravel()[:LANES])


def prefetch(address: int) -> None:
    """Tell the processor that what stands in memory there is needed soon; no address is wrong."""


def _bits(flags: NDArray[np.bool_]) -> np.uint64:
    bits: np.uint64 = np.bitwise_or.reduce(np.uint64(1) << np.flatnonzero(flags).astype(np.uint64))
    return bits


def _loaded(context: Any, builder: Any, kind: Any, array: Any, value: Any, place: Any) -> Any:
    # What stands in an array from a place on. Its address is taken here and not in the kernel, which would
    # count a reference to the array.
    data = context.make_array(array)(context, builder, value).data
    found = builder.load(builder.bitcast(builder.gep(data, [place]), kind.as_pointer()))
    found.align = 1
    return found


def _spread(builder: Any, kind: Any, value: Any) -> Any:
    # A vector of one value.
    nothing, lanes = ir.Constant(kind, ir.Undefined), ir.VectorType(ir.IntType(32), kind.count)
    one = builder.insert_element(nothing, value, ir.IntType(32)(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(lanes, None))


@intrinsic  # type: ignore[untyped-decorator]
def _block_at(_typing: Any, codes: Any, first: Any, code: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        block = _loaded(context, builder, _BLOCK, signature.args[0], arguments[0], arguments[1])
        same = builder.icmp_unsigned("==", block, _spread(builder, _BLOCK, arguments[2]))
        return builder.bitcast(same, _WORD)

    return types.uint64(codes, types.int64, types.uint8), emit


@intrinsic  # type: ignore[untyped-decorator]
def _same_words(_typing: Any, word: Any, words: Any, masks: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wanted, mask = (
            _loaded(context, builder, _LANES, signature.args[k], arguments[k], ir.IntType(64)(0))
            for k in (1, 2)
        )
        masked = builder.and_(_spread(builder, _LANES, arguments[0]), mask)
        same = builder.bitcast(builder.icmp_unsigned("==", masked, wanted), ir.IntType(LANES))
        return builder.zext(same, _WORD)

    return types.uint64(types.uint64, words, masks), emit


@intrinsic  # type: ignore[untyped-decorator]
def _word_at(_typing: Any, codes: Any, first: Any) -> Any:
    def emit(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = _loaded(context, builder, _WORD, signature.args[0], arguments[0], arguments[1])
        return word if sys.byteorder == "little" else builder.bswap(word)

    return types.uint64(codes, types.int64), emit


@intrinsic  # type: ignore[untyped-decorator]
def _trailing_zeros(_typing: Any, bits: Any) -> Any:
    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.IntType(1)(1))

    return types.int64(types.uint64), emit


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_typing: Any, address: Any) -> Any:
    def emit(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        bits, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, bits, bits, bits])
        hint = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        builder.call(hint, [builder.inttoptr(arguments[0], pointer), bits(0), bits(3), bits(1)])
        return ir.IntType(64)(0)

    return types.int64(types.intp), emit


@part
def _last_block(code: int, codes: Codes, first: int) -> np.uint64:
    left = codes.size - first
    if left <= 0:
        return np.uint64(0)
    if codes.size >= BLOCK:  # the last block of the text, without what stands before `first`
        bits: np.uint64 = _block_at(codes, codes.size - BLOCK, code)
        return bits >> np.uint64(BLOCK - left)
    bits = np.uint64(0)
    for k in range(left):
        bits |= np.uint64(codes[first + k] == code) << np.uint64(k)
    return bits


@part
def _last_eight(codes: Codes, first: int) -> np.uint64:
    word = np.uint64(0)
    for k in range(codes.size - first):
        word |= np.uint64(codes[first + k]) << np.uint64(8 * k)
    return word


@overload(places_of)  # type: ignore[untyped-decorator]
def _places_of(code: int, codes: Codes, first: int) -> Any:
    def compiled(code: int, codes: Codes, first: int) -> Any:
        if codes.size - first >= BLOCK:
            return _block_at(codes, first, code)
        return _last_block(code, codes, first)

    return compiled


@overload(eight_at)  # type: ignore[untyped-decorator]
def _eight_at(codes: Codes, first: int) -> Any:
    def compiled(codes: Codes, first: int) -> Any:
        return _word_at(codes, first) if first + 8 <= codes.size else _last_eight(codes, first)

    return compiled


@overload(same_words)  # type: ignore[untyped-decorator]
def _compared(word: np.uint64, words: Words, masks: Words) -> Any:
    def compiled(word: np.uint64, words: Words, masks: Words) -> Any:
        return _same_words(word, words, masks)

    return compiled


@overload(prefetch)  # type: ignore[untyped-decorator]
def _prefetched(address: int) -> Any:
    def compiled(address: int) -> Any:
        _prefetch(address)

    return compiled


@overload(lowest)  # type: ignore[untyped-decorator]
def _lowest(bits: np.uint64) -> Any:
    def compiled(bits: np.uint64) -> Any:
        return _trailing_zeros(bits)

    return compiled
