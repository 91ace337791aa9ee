"""What kernels compile in place of the functions of `_vectors`, against their plain definitions."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from numba import njit

from lfpc_rewards import _vectors
from lfpc_rewards._vectors import LANES


@njit
def places_of(code, codes, first):
    return _vectors.places_of(code, codes, first)


@njit
def eight_at(codes, first):
    return _vectors.eight_at(codes, first)


@njit
def lowest(bits):
    return _vectors.lowest(bits)


@njit
def same_words(word, words, masks):
    return _vectors.same_words(word, words, masks)


@njit
def prefetch(address):
    _vectors.prefetch(address)


def inside(codes):
    """The characters, with others behind their end that nobody may look at."""
    return np.array([*codes, *b"<" * 64], np.uint8)[: len(codes)]


# Lengths around one and two blocks; few characters, so that many of them are the one that is looked for.
texts = st.lists(st.sampled_from(list(b"<a\x00\xff")), max_size=140).map(inside)


@given(texts, st.integers(0, 150), st.sampled_from(list(b"<\x00\xff")))
@example(inside(b"<" * 64), 0, 60)
@example(inside(b"<" * 65), 2, 60)
def test_a_bit_for_each_character(codes, first, code):
    found = int(places_of(code, codes, first))
    assert found == int(_vectors.places_of(code, codes, first))
    here = bytes(codes[first : first + 64])
    assert found == sum(1 << place for place, each in enumerate(here) if each == code)


@given(texts, st.integers(-2, 10))
@example(inside(b"abcdefg"), 7)
@example(inside(b"abcdefgh"), 8)
def test_eight_characters_are_one_number(codes, before_the_end):
    first = max(codes.size - before_the_end, 0)
    assert eight_at(codes, first) == _vectors.eight_at(codes, first)
    assert int(eight_at(codes, first)) == sum(int(c) << 8 * k for k, c in enumerate(codes[first : first + 8]))


@given(st.integers(1, 2**64 - 1))
@example(1 << 63)
def test_the_lowest_bit(bits):
    assert lowest(np.uint64(bits)) == _vectors.lowest(np.uint64(bits)) == f"{bits:b}"[::-1].index("1")


lanes = st.lists(
    st.sampled_from([0, 1, 0xFF00, 2**63, 2**64 - 1]), min_size=2 * LANES, max_size=2 * LANES
).map(lambda words: np.array(words, np.uint64).reshape(2, LANES))


@given(st.sampled_from([0, 1, 0xFF00, 0xFF01, 2**64 - 1]), lanes, lanes)
def test_a_bit_for_each_word_that_is_the_same_under_its_mask(word, words, masks):
    found = int(same_words(np.uint64(word), words, masks))
    assert found == int(_vectors.same_words(np.uint64(word), words, masks))
    pairs = zip(words[0].tolist(), masks[0].tolist(), strict=True)
    assert found == sum(1 << lane for lane, (each, mask) in enumerate(pairs) if word & mask == each)


def test_no_address_is_wrong_for_a_prefetch():
    for address in (0, -1, 1 << 46):
        assert prefetch(address) is _vectors.prefetch(address) is None
