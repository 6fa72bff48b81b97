"""An added column that only some endpoints fill stands in the output once an answer fills it."""

import pytest

from pipeline.execution.reported import ReportedColumns
from pipeline.records import Answer, Usage, pack_message


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (Answer(text="a"), set()),
        (Answer(text="a", usage=Usage(5, 1, tier="default", cache_write_tokens=0)), set()),
        (Answer(text="a", usage=Usage(5, 1, tier="flex")), {"tier"}),
        (Answer(text="a", usage=Usage(5, 1, cache_write_tokens=4)), {"cache_write_tokens"}),
        (Answer(text="a", served_by="Fireworks"), {"served_by"}),
        (Answer(text="a", message=pack_message({"reasoning": "Hm."}, {}, "a")), {"reasoning"}),
        (Answer(text="a", message=pack_message({"audio": {"id": "x"}}, {}, "a")), set()),
        (Answer(text="a", message=pack_message({}, {"citations": ["https://a.example"]}, "a")), {"citations"}),
        (Answer(text=" <think>Hm.</think>a"), {"reasoning"}),
        (Answer(text="Hm.", taken_from="reasoning"), {"reasoning"}),
    ],
)
def test_an_answer_fills_the_columns_that_it_has_something_for(answer: Answer, names: set[str]) -> None:
    columns = ReportedColumns()
    assert columns.see(answer) == bool(names)
    assert columns.names == names
    assert not columns.see(answer)


def test_what_earlier_runs_filled_stays() -> None:
    columns = ReportedColumns(["tier"])
    assert columns.see(Answer(text="a", served_by="x"))
    assert columns.names == {"tier", "served_by"}
