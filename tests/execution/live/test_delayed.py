import math

from live_run import request

from pipeline.execution.live.delayed import Delayed
from pipeline.execution.live.open_request import OpenRequest


def test_requests_leave_by_their_time_and_then_in_their_order() -> None:
    delayed, items = Delayed(), [OpenRequest(request(text)) for text in "abc"]
    for item, at in zip(items, (7.0, 5.0, 5.0), strict=True):
        delayed.add(item, at)
    assert delayed.due(4.9) is None
    left = []
    while (item := delayed.due(7.0)) is not None:
        left.append((item, delayed.first_at))
        delayed.remove_first()
    assert left == [(items[1], 5.0), (items[2], 5.0), (items[0], 7.0)]
    assert (len(delayed), delayed.first_at, delayed.size_bytes) == (0, math.inf, 0)


def test_a_superseded_request_is_left_out_and_takes_no_room() -> None:
    delayed, superseded, other = Delayed(), OpenRequest(request("a")), OpenRequest(request("b"))
    delayed.add(superseded, 1.0)
    delayed.add(other, 2.0)
    superseded.is_superseded = True
    assert delayed.due(2.0) is other
    assert delayed.size_bytes == len(other.request.body)
