"""Digests: the first 16 bytes of each key as a 128-bit number, and fast look-up among millions of them.

Polars needs about 40 bytes for each digest in a set that others are looked up in. The functions here therefore look up
in parts of a limited size, so that memory stays close to the 16 bytes of each digest.
"""

from collections.abc import Sequence

import polars as pl

DIGESTS_PER_PART = 500_000
"""Number of digests that are looked up in at once: exact where a series is cut, approximate where values are split."""
DIGEST_BITS = 128
"""The size of a digest: half of a sha256."""


def digests_of(keys: pl.Series) -> pl.Series:
    """The digest of each key (Binary, 32 bytes) as Int128; null where the key is null."""
    return keys.bin.slice(0, 16).bin.reinterpret(dtype=pl.Int128).alias("digest")


def digests_of_text(keys: Sequence[str]) -> pl.Series:
    """The digest of each key written in hexadecimal, as the store holds them."""
    return digests_of(pl.Series("key", keys, dtype=pl.String).str.decode("hex"))


def are_in(digests: pl.Series, among: pl.Series, part_size: int = DIGESTS_PER_PART) -> pl.Series:
    """A Boolean for each digest: whether it occurs in `among`. Null occurs nowhere."""
    found = pl.repeat(value=False, n=len(digests), eager=True)
    for start in range(0, len(among), part_size):
        found |= digests.is_in(among.slice(start, part_size).implode()).fill_null(value=False)
    return found


def first_of_equals(digests: pl.Series, part_size: int = DIGESTS_PER_PART) -> pl.Series:
    """A Boolean for each digest: whether it is the first occurrence of its value. False for null."""
    first = pl.repeat(value=False, n=len(digests), eager=True)
    parts = len(digests) // part_size + 1
    least = -(2 ** (DIGEST_BITS - 1))
    # digests are parts of hashes and so evenly spread: ranges of equal width hold about equally many
    edges = [least + part * 2**DIGEST_BITS // parts for part in range(parts)]
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        numbers = ((digests >= low) if high is None else (digests >= low) & (digests < high)).arg_true()
        first = first.scatter(numbers.filter(digests.gather(numbers).is_first_distinct()), values=True)
    return first
