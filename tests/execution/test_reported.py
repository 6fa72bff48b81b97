"""An added column that only some endpoints fill stands in the output once an answer fills it."""

from typing import Any

import pytest

from pipeline.execution.reported import ReportedColumns
from pipeline.records import Answer, Usage, pack_message


def packed(message: dict[str, Any], document: dict[str, Any], text: str) -> dict[str, Any]:
    message_bytes, fills = pack_message(message, document, text)
    return {"message": message_bytes, "message_fills": fills}


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (Answer(text="a"), set()),
        (Answer(text="a", usage=Usage(5, 1, tier="default", cache_write_tokens=0)), set()),
        (Answer(text="a", usage=Usage(5, 1, tier="flex")), {"tier"}),
        (Answer(text="a", usage=Usage(5, 1, cache_write_tokens=4)), {"cache_write_tokens"}),
        (Answer(text="a", served_by="Fireworks"), {"served_by"}),
        (Answer(text="a", **packed({"reasoning": "Hm."}, {}, "a")), {"reasoning"}),
        (Answer(text="a", **packed({"audio": {"id": "x"}}, {}, "a")), set()),
        (Answer(text="a", **packed({}, {"citations": ["https://a.example"]}, "a")), {"citations"}),
        (Answer(text=" <think>Hm.</think>a"), {"reasoning"}),
        (Answer(text="Hm.", taken_from="reasoning"), {"reasoning"}),
    ],
)
def test_an_answer_fills_the_columns_that_it_has_something_for(answer: Answer, names: set[str]) -> None:
    columns = ReportedColumns()
    assert columns.add(answer) == bool(names)
    assert columns.names == names
    assert not columns.add(answer)


def test_what_earlier_runs_filled_stays() -> None:
    columns = ReportedColumns(["tier"])
    assert columns.add(Answer(text="a", served_by="x"))
    assert columns.names == {"tier", "served_by"}


def test_in_a_job_at_half_price_every_tier_is_worth_a_column() -> None:
    columns = ReportedColumns(has_tiers=True)
    assert not columns.add(Answer(text="a"))
    assert columns.add(Answer(text="a", usage=Usage(5, 1, tier="default")))
