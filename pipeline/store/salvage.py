"""Opening a job's store; from a damaged one, all rows that can still be read, once a person agrees to that."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from ..records import NewerVersion, Stopped, Tally
from .database import SCHEMA, connect, rebuild
from .errors import StoreDamaged
from .ledger import largest_ledger
from .notes import BATCHES, LEDGER, read_ledger, read_open_batches
from .outcomes import refuse_newer_format, refuse_unknown_mark
from .reader import Reader
from .rows import COLUMNS, FORMAT_NOTE, NOTE_PREFIX, NOTE_TAG, Entry, entry_from_row
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
    ledger, the sidecar and the history is kept, and `settle_ledger` adds what the outcomes tell. Hold the job's lock.

    Raises StoreDamaged if no outcome can be read, NewerVersion if a newer version wrote the store, Stopped if `agree`
    says no or the store cannot be opened.
    """
    folder = job_folder / "store"
    _refuse_newer_notes(folder)
    try:
        return Store(folder)
    except StoreDamaged as damage:
        sidecar = Sidecar.read(folder)
        refuse_newer_format(folder, sidecar.notes.get(FORMAT_NOTE))
        outcomes, notes = _survey(folder)
        notes = {**sidecar.notes, **notes}
        if not outcomes:
            raise
        of_all = f" of {sidecar.rows - len(sidecar.notes) - 1:,} or more" if sidecar.rows else ""  # 1: its identity
        offer = (
            f"{damage}\nOr continue with what can still be read: {outcomes:,}{of_all} answers. The others are asked, "
            f"and paid for, again; the damaged folder is moved aside, not deleted.{_lost_batches(job_folder, notes)}"
        )
        if not agree(f"{offer} Continue with these?"):
            raise Stopped(f"{offer}\nTo continue with these, add --yes. Nothing was sent.") from damage
    ledger = largest_ledger(job_folder, sidecar.notes.get(LEDGER), notes.get(LEDGER))
    notes |= {LEDGER: b"" if ledger == Tally() else msgspec.json.encode(ledger)}
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


def _refuse_newer_notes(folder: Path) -> None:
    """Raise NewerVersion if a newer version wrote a note that a run goes by, before anything is changed."""
    with _passing_by_damage(), contextlib.closing(Reader(folder)) as reader:
        with _passing_by_damage():
            read_ledger(reader)
        with _passing_by_damage():
            read_open_batches(reader.note)


@contextlib.contextmanager
def _passing_by_damage() -> Iterator[None]:
    """Pass over a store that is not there yet, or that its writer has to see to; but not over a newer version's."""
    try:
        yield
    except NewerVersion:
        raise
    except (FileNotFoundError, Stopped):
        return


def _lost_batches(job_folder: Path, notes: dict[str, bytes]) -> str:
    """A sentence on batches that the provider may hold, if the note of them is lost; else empty."""
    files = [] if notes.get(BATCHES) else [*(job_folder / "batches").glob("*.jsonl")]
    if not files:
        return ""
    return (
        f" The note of open batches is lost: the provider may hold batches of {len(files):,} files of requests, which "
        "would be sent again. Look there first, and cancel them."
    )


def _survey(folder: Path) -> tuple[int, dict[str, bytes]]:
    """Count the outcomes of a damaged store that can be read, and read its notes. Raises NewerVersion."""
    outcomes, notes = 0, {}
    for entry in readable_entries(folder):
        if entry.tag == NOTE_TAG:
            notes[entry.key.removeprefix(NOTE_PREFIX)] = entry.value
        else:
            refuse_unknown_mark(folder, entry.tag)
            outcomes += 1
    refuse_newer_format(folder, notes.get(FORMAT_NOTE))
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
