"""Outcomes are decoded as they were stored, and what only a newer version understands is refused as such."""

from pathlib import Path

import msgspec
import pytest

from pipeline.records import Answer, Failure, NewerVersion, Stopped
from pipeline.store.outcomes import (
    MARKS,
    OutcomeCount,
    cost_of,
    read_outcome,
    refuse_newer_format,
    refuse_unknown_mark,
)
from pipeline.store.rows import checksum

STORED = msgspec.json.encode(Answer(text="yes", cost=0.5))


def test_a_field_that_is_not_known_is_passed_over() -> None:
    assert read_outcome(STORED[:-1] + b',"mood":"cheerful"}') == Answer(text="yes", cost=0.5)


@pytest.mark.parametrize(
    "stored", [b'{"type":"silence"}', b'{"type":3}', b'{"type":"answer","text":["yes"],"parts":2}', b'{"of":"kind"}']
)
def test_an_outcome_of_another_kind_or_with_other_fields_is_a_newer_versions(stored: bytes) -> None:
    with pytest.raises(NewerVersion, match="written by a newer version"):
        read_outcome(stored)


@pytest.mark.parametrize(
    "stored", [b"", b"{", b"\xff", b"7", b'{"type":"answer","text":3}', b"[" * 100_000, b'{"type":' + b"[" * 100_000]
)
def test_what_no_version_wrote_is_damaged_and_costs_nothing(stored: bytes) -> None:
    with pytest.raises(Stopped, match="is damaged") as stopped:
        read_outcome(stored)
    assert not isinstance(stopped.value, NewerVersion)
    assert cost_of(stored) == 0.0


def test_only_marks_that_outcomes_can_have_are_known(tmp_path: Path) -> None:
    for mark in MARKS:
        refuse_unknown_mark(tmp_path, mark)
    for mark in ("pending", "withheld", "", "note"):
        with pytest.raises(NewerVersion):
            refuse_unknown_mark(tmp_path, mark)


def test_a_store_without_a_format_has_the_first_and_no_other_is_read(tmp_path: Path) -> None:
    refuse_newer_format(tmp_path, None)
    refuse_newer_format(tmp_path, b"1")
    for other in (b"2", b"1.1", b""):
        with pytest.raises(NewerVersion, match="its format is"):
            refuse_newer_format(tmp_path, other)


def test_costs_are_added_of_whole_outcomes_and_of_nothing_else(tmp_path: Path) -> None:
    count = OutcomeCount(tmp_path)
    failed = msgspec.json.encode(Failure("timeout", "late", cost=0.25))
    for tag, value in ((b"ok", STORED), (b"unsettled", failed), (b"note", b'{"cost":7}')):
        assert count.is_whole(checksum(b"key", tag, value), b"key", tag, value)
    assert not count.is_whole(0, b"key", b"ok", STORED)
    assert (count.cost, count.newer) == (0.75, None)
    assert count.is_whole(checksum(b"key", b"withheld", STORED), b"key", b"withheld", STORED)
    assert count.newer is not None
