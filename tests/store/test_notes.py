"""Notes and outcomes come back as they were written, in a format that stays; a damaged one stops the job in words."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.records import Answer, Failure, LaneId, LearnedLimits, NewerVersion, Stopped, Tally, Usage
from pipeline.store.notes import (
    BATCHES,
    LEARNED_LIMITS,
    LEDGER,
    RUN_STATUS,
    SERVED_MODELS,
    BatchFile,
    LearnedNote,
    OpenBatches,
    RunStatus,
    latest_learned_limits,
    read_learned_limits,
    read_ledger,
    read_open_batches,
    read_run_status,
    read_served_models,
)
from pipeline.store.outcomes import read_outcome
from pipeline.store.reader import Reader
from pipeline.store.writer import Store

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
STATUS = RunStatus(
    NOON, NOON - timedelta(hours=1), 100, Tally(ok=40), {"concurrency": 8}, 2.5, "after HTTP 429", "SIGINT"
)
LEARNED = LearnedNote(LaneId("https://a.example/v1", "m", "KEY"), LearnedLimits(60.0, None, 4), NOON)
BATCH = BatchFile("ab.jsonl", "m", 10, 2000, 0.5, "file-1", "batch-1", NOON, 3, 1, is_ending=True)


def noted(folder: Path, name: str, value: bytes) -> Reader:
    with closing(Store(folder)) as store:
        store.note(name, value)
        asyncio.run(store.flush())
    return Reader(folder)


@pytest.mark.parametrize(
    ("record", "stored"),
    [
        (
            STATUS,
            b'{"at":"2026-11-22T12:00:00Z","began":"2026-11-22T11:00:00Z","to_ask":100,"asked":'
            + msgspec.json.encode(Tally(ok=40))
            + b',"limits":{"concurrency":8},"wait_seconds":2.5,"cause":"after HTTP 429","stopping":"SIGINT"}',
        ),
        (
            LEARNED,
            (
                b'{"lane":{"base_url":"https://a.example/v1","model":"m","api_key_env":"KEY"},'
                b'"learnt":{"requests_per_minute":60.0,"window":4},"at":"2026-11-22T12:00:00Z"}'
            ),
        ),
        (
            OpenBatches((BATCH,), 9000.0, 2),
            (
                b'{"sheets":[{"name":"ab.jsonl","model":"m","requests":10,"size_bytes":2000,"reserved":0.5,'
                b'"file_id":"file-1","batch_id":"batch-1","made_at":"2026-11-22T12:00:00Z","done":3,"form":1,'
                b'"is_ending":true}],"queued_tokens_most":9000.0,"form":2}'
            ),
        ),
    ],
    ids=["run status", "learned limits", "open batches"],
)
def test_the_names_of_fields_on_disk_stay(record: Any, stored: bytes) -> None:
    assert msgspec.json.encode(record) == stored
    assert msgspec.json.decode(stored, type=type(record)) == record


def test_the_names_of_notes_on_disk_stay() -> None:
    assert (LEDGER, LEARNED_LIMITS, RUN_STATUS, BATCHES) == ("ledger", "learnt", "now", "batches")


def test_each_note_comes_back_as_it_was_written(tmp_path: Path) -> None:
    ledger, batches = Tally(ok=3, cost=1.5), OpenBatches((BATCH,), 9000.0, 2)
    with closing(noted(tmp_path / "store", LEDGER, msgspec.json.encode(ledger))) as reader:
        assert read_ledger(reader) == ledger
    with closing(noted(tmp_path / "store", LEARNED_LIMITS, msgspec.json.encode([LEARNED]))) as reader:
        assert read_learned_limits(reader) == {LEARNED.lane: LEARNED}
    with closing(noted(tmp_path / "store", RUN_STATUS, msgspec.json.encode(STATUS))) as reader:
        assert read_run_status(reader) == STATUS
    with closing(noted(tmp_path / "store", BATCHES, msgspec.json.encode(batches))) as reader:
        assert read_open_batches(reader.note) == batches
        assert read_ledger(reader) == ledger


def test_a_store_without_notes_and_no_store_at_all_have_empty_ones(tmp_path: Path) -> None:
    Store(tmp_path / "store").close()
    with closing(Reader(tmp_path / "store")) as reader:
        for source in (reader, None):
            assert read_ledger(source) == Tally()
            assert read_learned_limits(source) == {}
        assert read_run_status(reader) is None
        assert latest_learned_limits(reader) is None
        assert read_open_batches(reader.note) == OpenBatches()


def test_the_limits_learned_last_are_those_of_the_latest_note(tmp_path: Path) -> None:
    earlier = LearnedNote(LaneId("u", "other", ""), LearnedLimits(window=99), NOON - timedelta(days=1))
    with closing(noted(tmp_path / "store", LEARNED_LIMITS, msgspec.json.encode([LEARNED, earlier]))) as reader:
        assert latest_learned_limits(reader) == LEARNED.learnt


def test_learned_limits_grow_old_and_are_never_of_the_future() -> None:
    hour_ago, ahead = (datetime.now(tz=UTC) + timedelta(hours=hours) for hours in (-1, 1))
    assert 3600 <= msgspec.structs.replace(LEARNED, at=hour_ago).aged.age_seconds < 3660
    assert msgspec.structs.replace(LEARNED, at=ahead).aged == LEARNED.learnt


@pytest.mark.parametrize(
    ("name", "read", "what"),
    [
        (LEDGER, read_ledger, r"the ledger is damaged: .*Run the job again"),
        (BATCHES, lambda reader: read_open_batches(reader.note), r"the note of open batches is damaged: .*--job-dir"),
    ],
)
@pytest.mark.parametrize("damaged", [b"{", b"\xff", b'"text"'])
def test_a_damaged_note_is_named_with_the_remedy(
    tmp_path: Path, name: str, read: Callable[[Reader], object], what: str, damaged: bytes
) -> None:
    with (
        closing(noted(tmp_path / "store", name, damaged)) as reader,
        pytest.raises(Stopped, match=f"In the store, {what}"),
    ):
        read(reader)


@pytest.mark.parametrize("newer", [b'{"entries":[1]}', b'{"cost":{"EUR":1},"sheets":7,"currency":"EUR"}'])
def test_a_ledger_and_batches_that_only_a_newer_version_understands_are_refused_as_such(
    tmp_path: Path, newer: bytes
) -> None:
    with (
        closing(noted(tmp_path / "a", LEDGER, newer)) as ledger,
        pytest.raises(NewerVersion, match=r"the ledger .* was written by a newer version"),
    ):
        read_ledger(ledger)
    with (
        closing(noted(tmp_path / "b", BATCHES, newer)) as batches,
        pytest.raises(NewerVersion, match=r"the note of open batches .* was written by a newer version"),
    ):
        read_open_batches(batches.note)


@pytest.mark.parametrize("damaged", [b"{", b"\xff", b'"text"', b'[{"lane":"noon"}]'])
def test_learned_limits_that_cannot_be_understood_count_as_none(tmp_path: Path, damaged: bytes) -> None:
    with closing(noted(tmp_path / "store", LEARNED_LIMITS, damaged)) as reader:
        assert read_learned_limits(reader) == {}


@pytest.mark.parametrize("damaged", [b"{", b"\xff", b'"text"', b'{"at":"noon"}'])
def test_a_run_status_that_cannot_be_understood_counts_as_none(tmp_path: Path, damaged: bytes) -> None:
    with closing(noted(tmp_path / "store", RUN_STATUS, damaged)) as reader:
        assert read_run_status(reader) is None


@pytest.mark.parametrize(
    "outcome",
    [
        Answer(text="é\n\0", finish_reason="stop", usage=Usage(3, 1), cost=0.5, asked_at=NOON),
        Failure("timeout", "late"),
    ],
)
def test_an_outcome_comes_back_as_it_was(outcome: Answer | Failure) -> None:
    assert read_outcome(msgspec.json.encode(outcome)) == outcome


@pytest.mark.parametrize("damaged", [b"", b"{}", b"\xff", b'{"type":"answer"}'])
def test_a_damaged_outcome_stops_the_job_in_words(damaged: bytes) -> None:
    with pytest.raises(Stopped, match=r"an answer is damaged: .*Put back a copy of the whole job folder"):
        read_outcome(damaged)


def test_the_models_that_answered_are_read_and_are_not_worth_a_stop(tmp_path: Path) -> None:
    assert read_served_models(None) == {}
    for note, found in ((b'{"m": {"m-2": 3}}', {"m": {"m-2": 3}}), (b'{"m": {"m-2": -3}}', {}), (b"[", {})):
        with closing(Store(tmp_path / "store")) as store:
            store.note(SERVED_MODELS, note)
        with closing(Reader(tmp_path / "store")) as reader:
            assert read_served_models(reader) == found
