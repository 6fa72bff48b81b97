"""A damaged store goes on with what can still be read of it, once a person agrees to pay for the rest again."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..folder import RunEnd, read_history
from ..records import Stopped, Tally
from .notes import LEDGER
from .sidecar import Sidecar
from .writer import (
    NOTE_PREFIX,
    NOTE_TAG,
    ROW,
    SCHEMA,
    Entry,
    Store,
    StoreDamaged,
    entry_from_row,
    open_database,
    rebuild,
)

LAST_ROW = 2**63 - 1
UNMARKED_ROWS = 5_000
"""More rows than a store commits before its watermark tells of them."""
LEAST_BYTES = 250
"""Of a row in the file, its key in the index counted, where no watermark tells how many there are."""
MOST_FAILURES = 300_000
"""Reads that may fail before the search is given up: half a minute of them."""


def open_store(job_folder: Path, agree: Callable[[str], bool]) -> Store:
    """Open a job's store; in place of a damaged one, a new one of all rows that can still be read, if `agree` says so.

    The damaged one is moved aside whole. What was spent stays known: by its own ledger, its watermark or the history,
    whichever knows of more. Hold the job's lock. Raises Stopped if it is not agreed to, or if nothing can be read.
    """
    folder = job_folder / "store"
    try:
        return Store(folder)
    except StoreDamaged as damage:
        notes = {}
        outcomes = 0
        for entry in readable_entries(folder):
            if entry.tag == NOTE_TAG:
                notes[entry.key.removeprefix(NOTE_PREFIX)] = entry.value
            else:
                outcomes += 1
        if not outcomes:
            raise
        known = Sidecar.of(folder)
        of = f" of {known.rows - len(known.notes) - 1:,} or more" if known.rows else ""
        offer = (
            f"{damage}\nOr go on with what can still be read: {outcomes:,}{of} answers. The others are asked, and "
            "paid, again; the damaged folder is moved aside, not removed."
        )
        if not agree(f"{offer} Go on with these?"):
            raise Stopped(f"{offer}\nTo go on with these, add --yes. Nothing was sent.") from damage
    notes = {**known.notes, **notes}
    notes[LEDGER] = msgspec.json.encode(_ledger(job_folder, known.notes.get(LEDGER), notes.get(LEDGER)))
    rebuild(folder, (entry for entry in readable_entries(folder) if entry.tag != NOTE_TAG), notes)
    return Store(folder)


def readable_entries(folder: Path) -> Iterator[Entry]:
    """All rows of a damaged store that a Store wrote and that are as it wrote them; the store is only read.

    Where a stretch of rows cannot be read it is halved, until what is lost is single rows.
    """
    with contextlib.ExitStack() as open_things:
        try:
            connection = open_things.enter_context(contextlib.closing(open_database(folder, "ro")))
            # So SQLite takes the pages that are there, where the file is shorter than it says.
            connection.execute("PRAGMA writable_schema = ON")
            made = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'Cache'").fetchall()
        except sqlite3.Error:
            return
        if len(made) != 1 or type(made[0][0]) is not str or not SCHEMA.fullmatch(made[0][0]):
            return
        known = Sidecar.of(folder).rows
        size = (folder / "cache.db").stat().st_size
        yield from _by_halves(connection, known + UNMARKED_ROWS if known else size // LEAST_BYTES)


def _by_halves(connection: sqlite3.Connection, likely_last: int) -> Iterator[Entry]:
    sql = f"SELECT rowid, {ROW} FROM Cache WHERE rowid BETWEEN ? AND ? ORDER BY rowid"  # noqa: S608 - constants
    stretches = [(likely_last + 1, LAST_ROW), (1, likely_last)]
    failures = 0
    while stretches and failures < MOST_FAILURES:
        low, high = stretches.pop()
        try:
            for rowid, *row in connection.execute(sql, (low, high)):
                low = rowid + 1
                with contextlib.suppress(TypeError):  # a row that no store writes
                    yield entry_from_row(row)
        except sqlite3.Error:
            failures += 1
            if low < high < LAST_ROW:  # far out there are no rows to find, unless there were no failure
                middle = (low + high) // 2
                stretches += [(middle + 1, high), (low, middle)]


def _ledger(job_folder: Path, *noted: bytes | None) -> Tally:
    """What was spent, by whoever knows of more of it."""
    known = [Tally()]
    for note in noted:
        with contextlib.suppress(msgspec.DecodeError):
            known.append(msgspec.json.decode(note or b"", type=Tally))
    ledger = max(known, key=lambda tally: (tally.cost + tally.held, tally.attempts))
    told = [line.summary.spent for line in read_history(job_folder) if isinstance(line, RunEnd)]
    return msgspec.structs.replace(ledger, cost=max([ledger.cost, *told]))
