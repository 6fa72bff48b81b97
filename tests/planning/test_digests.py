"""Keys are looked up among others, and the first of equals is found, whatever the size of a part."""

from hashlib import sha256

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning.digests import are_in, digests_of, digests_of_text, first_of_equals

NUMBERS = st.lists(st.none() | st.integers(0, 20), max_size=60)
PARTS = st.integers(1, 70)


def digests(numbers: list[int | None]) -> pl.Series:
    keys = [None if number is None else sha256(b"%d" % number).digest() for number in numbers]
    return digests_of(pl.Series("key", keys, dtype=pl.Binary))


@given(numbers=NUMBERS, part_size=PARTS)
def test_the_first_of_equals_is_found_whatever_the_size_of_a_part(numbers: list[int | None], part_size: int) -> None:
    wanted = [number is not None and number not in numbers[:place] for place, number in enumerate(numbers)]
    assert first_of_equals(digests(numbers), part_size).to_list() == wanted


@given(numbers=NUMBERS, among=NUMBERS, part_size=PARTS)
def test_what_is_among_others_is_found_whatever_the_size_of_a_part(
    numbers: list[int | None], among: list[int | None], part_size: int
) -> None:
    wanted = [number is not None and number in among for number in numbers]
    assert are_in(digests(numbers), digests(among), part_size).to_list() == wanted


@pytest.mark.parametrize("key", [b"\x00" * 32, b"\xff" * 32, b"\x00" * 15 + b"\x80" + b"\x00" * 16])
def test_the_lowest_and_highest_keys_are_found(key: bytes) -> None:
    only = digests_of(pl.Series("key", [key, key], dtype=pl.Binary))
    assert first_of_equals(only, 1).to_list() == [True, False]
    assert digests_of_text([key.hex()]).to_list() == only.to_list()[:1]
