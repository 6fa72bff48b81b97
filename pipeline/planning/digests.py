"""Keys by their first half, 16 bytes each: which are among others, which are the first of their equals.

Polars takes 40 bytes for each digest that others are looked up among. So they are looked up among a part at a time, and
what is kept of millions of keys is hardly more than their digests.
"""

from collections.abc import Sequence

import polars as pl

AT_ONCE = 500_000
"""Digests of one part: the most, or, where the parts are cut by value, about so many."""
DIGEST_BITS = 128
"""Half of a sha256."""


def digests_of(keys: pl.Series) -> pl.Series:
    """The first 16 bytes of each key (Binary, of 32 bytes), as a number: enough to tell keys apart, and half the size.

    Null where there is no key.
    """
    return keys.bin.slice(0, 16).bin.reinterpret(dtype=pl.Int128).alias("digest")


def digests_of_text(keys: Sequence[str]) -> pl.Series:
    """The digests of keys in hexadecimal, as the store has them."""
    return digests_of(pl.Series("key", keys, dtype=pl.String).str.decode("hex"))


def are_in(digests: pl.Series, among: pl.Series, at_once: int = AT_ONCE) -> pl.Series:
    """Which of them (true) are among those; null is among none."""
    found = pl.repeat(value=False, n=len(digests), eager=True)
    for start in range(0, len(among), at_once):
        found |= digests.is_in(among.slice(start, at_once).implode()).fill_null(value=False)
    return found


def first_of_equals(digests: pl.Series, at_once: int = AT_ONCE) -> pl.Series:
    """Which of them (true) stand before all that equal them; null is none."""
    first = pl.repeat(value=False, n=len(digests), eager=True)
    parts = len(digests) // at_once + 1
    least = -(2 ** (DIGEST_BITS - 1))
    edges = [least + part * 2**DIGEST_BITS // parts for part in range(parts)]  # those of hashes are spread evenly
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        numbers = ((digests >= low) if high is None else (digests >= low) & (digests < high)).arg_true()
        first = first.scatter(numbers.filter(digests.gather(numbers).is_first_distinct()), values=True)
    return first
