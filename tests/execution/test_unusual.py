"""What is unusual about answers is told once for each word, and not without end."""

from pipeline.execution.unusual import TOLD_MAX, UnusualAnswers
from pipeline.records import Answer


def test_an_answer_as_usual_is_not_spoken_of() -> None:
    unusual = UnusualAnswers()
    assert [unusual.lines_for(Answer(text="a", finish_reason=reason)) for reason in (None, "stop", "length")] == [
        []
    ] * 3


def test_an_unknown_finish_reason_and_a_text_in_another_field_are_told_once() -> None:
    unusual, odd = UnusualAnswers(), Answer(text="a", finish_reason="tired\n", taken_from="reasoning")
    field, reason = unusual.lines_for(odd)
    assert "in the field reasoning" in field
    assert "unknown here: tired." in reason
    assert unusual.lines_for(odd) == []


def test_a_new_word_in_each_answer_is_not_told_for_ever() -> None:
    unusual = UnusualAnswers()
    told = [unusual.lines_for(Answer(text="a", finish_reason=f"word {number}")) for number in range(100)]
    assert sum(map(len, told)) == TOLD_MAX
