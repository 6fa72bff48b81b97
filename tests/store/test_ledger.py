"""A ledger knows of at least the money that its copies, the history and the outcomes know of."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from stores import put_all

from pipeline.records import Answer, Failure, Outcome, Tally, Usage
from pipeline.store.ledger import largest_ledger, settle_ledger, tally_outcomes
from pipeline.store.notes import LEDGER, read_ledger
from pipeline.store.reader import Reader
from pipeline.store.writer import Store

OUTCOMES: list[Outcome] = [
    Answer(text="yes", usage=Usage(10, 2), attempts=2, latency_seconds=0.5, cost=3.0),
    Answer(text="no", usage=Usage(None, None), attempts=1, cost=None),
    Failure("too_long", "4,097 tokens", attempts=1, cost=1.0),
]
WHOLE = Tally(cost=6.0, in_outcomes=4.0, held=1.0, attempts=9, answers=2, request_bytes=80, usage=Usage(10, 2))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Store, Reader]]:
    put_all(tmp_path / "store", [(f"{n:064x}", msgspec.json.encode(each), "ok") for n, each in enumerate(OUTCOMES)])
    with closing(Store(tmp_path / "store")) as store, closing(Reader(store.folder)) as reader:
        yield store, reader


def test_outcomes_tell_their_costs_attempts_and_tokens(opened: tuple[Store, Reader]) -> None:
    found = tally_outcomes(opened[1])
    assert found == Tally(
        cost=4.0, in_outcomes=4.0, unpriced=1, attempts=4, answers=2, usage=Usage(10, 2), request_bytes=40, seconds=0.5
    )
    assert opened[0].found.cost == 4.0


def test_a_ledger_that_is_lost_is_that_of_the_outcomes_and_is_noted(
    tmp_path: Path, opened: tuple[Store, Reader]
) -> None:
    store, reader = opened
    ledger, told = settle_ledger(tmp_path, store, reader)
    assert ledger == tally_outcomes(reader)
    assert "was lost" in told
    store.close()
    assert read_ledger(reader) == ledger
    again = Store(store.folder)
    assert settle_ledger(tmp_path, again, reader) == (ledger, "")
    again.close()


def test_a_store_without_outcomes_has_lost_nothing(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "store")) as store, closing(Reader(store.folder)) as reader:
        assert settle_ledger(tmp_path, store, reader) == (Tally(), "")


def test_of_copies_each_counts_for_the_money_that_it_alone_knows_of(tmp_path: Path) -> None:
    notes = [msgspec.json.encode(WHOLE), b'{"cost":9.5,"attempts":"many"}', b'{"cost":2.0,"held":3.0}', b"{", None]
    assert largest_ledger(tmp_path, *notes) == msgspec.structs.replace(WHOLE, cost=9.5, held=3.0)
    assert largest_ledger(tmp_path, b'{"cost":9.5,"attempts":"many"}').cost == 9.5
    assert largest_ledger(tmp_path, b'{"cost":-9.5,"held":3}', b"") == Tally(held=3.0)


def test_what_was_spent_beside_the_outcomes_stays_spent_when_the_outcomes_know_more(
    tmp_path: Path, opened: tuple[Store, Reader]
) -> None:
    store, reader = opened
    old = msgspec.structs.replace(WHOLE, cost=3.5, in_outcomes=1.0)
    store.note(LEDGER, msgspec.json.encode(old))
    store.close()
    with closing(Store(store.folder)) as again:
        ledger, told = settle_ledger(tmp_path, again, reader)
    assert "knew of $3.50" in told
    assert ledger == msgspec.structs.replace(old, cost=6.5, in_outcomes=4.0, unpriced=1)
