"""The sample of rows on the page: drawn at random, the same rows each time, and some of every status."""

import bisect
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ..prompts import Prompts
from ..records import Record, Status
from .text import VALUE_BYTES, clipped, dollars

SAMPLE_ROWS = 200
PROMPT_BYTES, ANSWER_BYTES, ERROR_BYTES = 2_600, 2_000, 500
"""Bytes that each text of a row may take, so that the whole sample takes about one megabyte."""


class SampledRow(Record, frozen=True):
    """A row of the sample, its texts clipped."""

    row: int
    """Number of the row in the input, from 1."""
    status: Status
    prompt: str
    answer: str
    typed: dict[str, str]
    """The typed columns of the answer, without nulls."""
    error: str
    gold: str
    facts: list[str]
    """Tokens, cost, latency and what else is known of the answer, as text."""


class RowSample:
    """Draws rows from a table that is read in slices. No more than SAMPLE_ROWS of each status are kept."""

    def __init__(self, prompts: Prompts, typed: Sequence[str], gold: str | None) -> None:
        """`typed`: names of the answer's typed columns; `gold`: the input's column of right answers, to be shown."""
        self._prompts, self._typed, self._gold = prompts, typed, gold
        self._drawn: dict[Status, list[tuple[int, SampledRow]]] = {}
        """Per status, in ascending order of a hash of the row's number; the rows with the lowest hashes stay."""

    def add(self, frame: pl.DataFrame, added: pl.DataFrame, before: int) -> None:
        """Draw from the next rows.

        `frame`: their output; `added`: its added columns without prefix; `before`: number of rows before them.
        """
        hashes = pl.int_range(before, before + frame.height, eager=True).hash(seed=1)
        places = pl.DataFrame({"hash": hashes, "status": added["status"]}).with_row_index("at")
        for (status,), group in places.partition_by("status", as_dict=True).items():
            drawn = self._drawn.setdefault(status, [])
            for at, row_hash in group.bottom_k(SAMPLE_ROWS, by="hash").sort("hash").select("at", "hash").iter_rows():
                if len(drawn) == SAMPLE_ROWS and row_hash > drawn[-1][0]:
                    break
                row = self._row(before + at + 1, frame.row(at, named=True), added.row(at, named=True))
                bisect.insort(drawn, (row_hash, row), key=lambda each: each[0])
                del drawn[SAMPLE_ROWS:]

    def _row(self, number: int, row: dict[str, Any], cells: dict[str, Any]) -> SampledRow:
        gold = None if self._gold is None else row[self._gold]
        return SampledRow(
            row=number,
            status=cells["status"],
            prompt=clipped(self._prompts.shown(row), PROMPT_BYTES),
            answer=clipped(cells["answer"] or "", ANSWER_BYTES),
            typed={name: clipped(str(cells[name]), VALUE_BYTES) for name in self._typed if cells[name] is not None},
            error=clipped(cells["error"] or "", ERROR_BYTES),
            gold="" if gold is None else clipped(str(gold), VALUE_BYTES),
            facts=[clipped(fact, VALUE_BYTES) for fact in _facts(cells)],
        )

    def rows(self) -> list[SampledRow]:
        """The sample in the table's order, at most SAMPLE_ROWS rows."""
        counts = fair_shares({status: len(drawn) for status, drawn in self._drawn.items()}, SAMPLE_ROWS)
        chosen = [row for status, drawn in self._drawn.items() for _, row in drawn[: counts[status]]]
        return sorted(chosen, key=lambda row: row.row)


def _facts(cells: Mapping[str, Any]) -> list[str]:
    """What is known of an answer beside its text, from the output's added columns."""
    facts = [
        f"{cells[name]:,} {name.removesuffix('_tokens')} tokens"
        for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens")
        if cells[name] is not None
    ]
    if cells["cost"]:
        facts.append(dollars(cells["cost"]))
    if cells["latency_seconds"] is not None:
        facts.append(f"{cells['latency_seconds']:.2f} s")
    if (cells["attempts"] or 0) > 1:
        facts.append(f"{cells['attempts']} attempts")
    facts += [f"{name} {cells[name]:.0%}" for name in ("agreement", "confidence") if cells.get(name) is not None]
    if cells.get("repaired"):
        facts.append(f"repaired: {cells['repaired']}")
    if "opinions" in cells:
        facts.append(f"opinions: {' | '.join(opinion or 'none' for opinion in cells['opinions'])}")
    if cells["finish_reason"] not in (None, "stop"):
        facts.append(f"finish reason: {cells['finish_reason']}")
    return facts


def common_beginning(sample: Sequence[SampledRow]) -> int:
    """The number of characters that all prompts begin with, up to the end of a word: the page leaves them out."""
    if len(sample) < 2:
        return 0
    first, last = min(row.prompt for row in sample), max(row.prompt for row in sample)
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return max(first.rfind(end, 0, same) for end in " \n") + 1


def fair_shares(wanted: Mapping[Status, int], room: int) -> dict[Status, int]:
    """Divide `room` equally among those who want some; what one does not need is left to the others."""
    shares = {}
    for left, (name, most) in zip(
        range(len(wanted), 0, -1), sorted(wanted.items(), key=lambda each: each[1]), strict=True
    ):
        shares[name] = min(most, room // left)
        room -= shares[name]
    return shares
