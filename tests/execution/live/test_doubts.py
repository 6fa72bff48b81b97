"""See also `faults/test_unasked.py`, where whole runs take answers back."""

from live_run import request

from pipeline.execution.live.doubts import Doubts
from pipeline.execution.live.open_request import OpenRequest
from pipeline.records import Answer


def answered() -> OpenRequest:
    item = OpenRequest(request("why"))
    item.tries.sent, item.outcome = 2, Answer(text="so")
    return item


def test_only_the_reply_that_gave_the_outcome_puts_it_in_doubt() -> None:
    item = answered()
    assert not Doubts().add(item, 1)
    assert not item.is_doubtful
    assert Doubts().add(item, 2)


def test_a_reply_that_is_being_read_is_only_marked() -> None:
    item = answered()
    item.outcome = None
    assert not Doubts().add(item, 2)
    assert item.is_doubtful


def test_what_does_not_count_is_not_doubted() -> None:
    item = answered()
    item.is_superseded = True
    assert not Doubts().add(item, 2)
