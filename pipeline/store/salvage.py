"""Opening a job's store; from a damaged one, all rows that can still be read, once a person agrees to that."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..folder import RunEnd, read_history
from ..records import Stopped, Tally
from .database import SCHEMA, connect, rebuild
from .errors import StoreDamaged
from .notes import LEDGER
from .rows import COLUMNS, NOTE_PREFIX, NOTE_TAG, Entry, entry_from_row
from .sidecar import Sidecar
from .writer import Store

LAST_ROWID = 2**63 - 1
"""The largest row id that SQLite gives."""
ROWS_AFTER_SIDECAR = 5_000
"""More rows than a store commits before it writes its sidecar again."""
ROW_BYTES_MIN = 250
"""The least bytes that a row takes in the file, its key in the index included: bounds the rows without a sidecar."""
FAILED_READS_MAX = 300_000
"""Reads that may fail before the search is given up: about half a minute of them."""


def open_store(job_folder: Path, agree: Callable[[str], bool]) -> Store:
    """Open a job's store; if it is damaged and `agree` says yes, replace it by one of all rows that can still be read.

    The damaged store is moved aside, nothing is deleted. The money spent stays known: the largest amount of the old
    ledger, the sidecar and the history is kept. Hold the job's lock.

    Raises StoreDamaged if no outcome can be read, Stopped if `agree` says no or the store cannot be opened.
    """
    folder = job_folder / "store"
    try:
        return Store(folder)
    except StoreDamaged as damage:
        sidecar = Sidecar.read(folder)
        outcomes, notes = _survey(folder)
        if not outcomes:
            raise
        of_all = f" of {sidecar.rows - len(sidecar.notes) - 1:,} or more" if sidecar.rows else ""  # 1: its identity
        offer = (
            f"{damage}\nOr continue with what can still be read: {outcomes:,}{of_all} answers. The others are asked, "
            "and paid for, again; the damaged folder is moved aside, not deleted."
        )
        if not agree(f"{offer} Continue with these?"):
            raise Stopped(f"{offer}\nTo continue with these, add --yes. Nothing was sent.") from damage
    ledger = _largest_ledger(job_folder, sidecar.notes.get(LEDGER), notes.get(LEDGER))
    notes = {**sidecar.notes, **notes, LEDGER: msgspec.json.encode(ledger)}
    rebuild(folder, (entry for entry in readable_entries(folder) if entry.tag != NOTE_TAG), notes)
    return Store(folder)


def readable_entries(folder: Path) -> Iterator[Entry]:
    """Yield all entries of a damaged store that can be read and are as a Store wrote them. Only reads the store.

    Where a range of rows cannot be read it is halved, until only single rows are lost.
    """
    with contextlib.ExitStack() as stack:
        try:
            connection = stack.enter_context(contextlib.closing(connect(folder, "ro")))
            # With this SQLite reads the pages that are there, where the file is shorter than its header says.
            connection.execute("PRAGMA writable_schema = ON")
            schema = connection.execute("SELECT sql FROM sqlite_master WHERE name = 'Cache'").fetchall()
        except sqlite3.Error:
            return
        if len(schema) != 1 or type(schema[0][0]) is not str or not SCHEMA.fullmatch(schema[0][0]):
            return
        rows = Sidecar.read(folder).rows
        size = (folder / "cache.db").stat().st_size
        yield from _entries_by_halves(connection, rows + ROWS_AFTER_SIDECAR if rows else size // ROW_BYTES_MIN)


def _survey(folder: Path) -> tuple[int, dict[str, bytes]]:
    """Count the outcomes of a damaged store that can be read, and read its notes."""
    outcomes, notes = 0, {}
    for entry in readable_entries(folder):
        if entry.tag == NOTE_TAG:
            notes[entry.key.removeprefix(NOTE_PREFIX)] = entry.value
        else:
            outcomes += 1
    return outcomes, notes


def _entries_by_halves(connection: sqlite3.Connection, likely_last: int) -> Iterator[Entry]:
    sql = f"SELECT rowid, {COLUMNS} FROM Cache WHERE rowid BETWEEN ? AND ? ORDER BY rowid"  # noqa: S608 - a constant
    ranges = [(likely_last + 1, LAST_ROWID), (1, likely_last)]
    failures = 0
    while ranges and failures < FAILED_READS_MAX:
        low, high = ranges.pop()
        try:
            for rowid, *row in connection.execute(sql, (low, high)):
                low = rowid + 1
                with contextlib.suppress(TypeError):  # damaged, or not written by a Store
                    yield entry_from_row(row)
        except sqlite3.Error:
            failures += 1
            if low < high < LAST_ROWID:  # rows after the likely last are read in one go only, as there should be none
                middle = (low + high) // 2
                ranges += [(middle + 1, high), (low, middle)]


def _largest_ledger(job_folder: Path, *notes: bytes | None) -> Tally:
    """The ledger that knows of the most spending, with the cost of the history if that is more."""
    ledgers = [Tally()]
    for note in notes:
        with contextlib.suppress(msgspec.DecodeError):
            ledgers.append(msgspec.json.decode(note or b"", type=Tally))
    ledger = max(ledgers, key=lambda tally: (tally.cost + tally.held, tally.attempts))
    spent = [line.summary.spent for line in read_history(job_folder) if isinstance(line, RunEnd)]
    return msgspec.structs.replace(ledger, cost=max([ledger.cost, *spent]))
