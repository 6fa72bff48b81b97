"""The answer of a row is chosen by majority vote, with its agreement and confidence."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers.contract import ParsedAnswer
from pipeline.answers.shapes import Shape
from pipeline.planning.chains import Chain, Step
from pipeline.records import Answer, Failure, Request
from pipeline.results.certainty import PENDING, Vote, compared_properties, confidence, majority_vote

FAILED = Failure(kind="timeout", reason="slow")


def chain(label: object = None, *, failed: bool = False, pending: bool = False) -> Chain:
    """A sample with a valid answer of this label, a failed or a pending one."""
    request = Request(key="", body=b"")
    made = Chain(request)
    if not pending:
        made.unanswered = None
        answer = Answer(text=str(label))
        parsed = ParsedAnswer({"label": label})
        made.steps.append(Step(request, FAILED, "failed", None) if failed else Step(request, answer, "ok", parsed))
    return made


def test_the_most_frequent_answer_is_chosen_with_its_share() -> None:
    samples = [chain("no"), chain("yes"), chain("yes"), chain("maybe")]
    assert majority_vote(samples, ["label"]) == Vote(samples[1].result, 0.5)


def test_of_equally_frequent_answers_the_earliest_is_chosen() -> None:
    samples = [chain("no"), chain("yes"), chain("yes"), chain("no")]
    assert majority_vote(samples, ["label"]).step is samples[0].result


def test_lists_in_another_order_are_the_same_answer() -> None:
    assert majority_vote([chain(["a", "b"]), chain(["b", "a"])], ["label"]).agreement == 1.0


def test_samples_with_a_worse_status_have_no_vote() -> None:
    samples = [chain(failed=True), chain(failed=True), chain("yes")]
    assert majority_vote(samples, ["label"]) == Vote(samples[2].result, 1.0)


def test_a_row_is_pending_while_one_sample_is() -> None:
    assert majority_vote([chain("yes"), chain(pending=True)], ["label"]) == PENDING


def test_without_properties_whole_texts_are_compared_and_there_is_no_agreement() -> None:
    samples = [chain("a"), chain("b"), chain("b")]
    assert majority_vote(samples, []) == Vote(samples[1].result, None)
    assert majority_vote([chain("a")], []) == Vote(majority_vote([chain("a")], []).step, None)


@given(labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=9))
def test_no_answer_is_more_frequent_than_the_chosen_one(labels: list[str]) -> None:
    step, agreement = majority_vote([chain(label) for label in labels], ["label"])
    assert step is not None
    assert step.parsed is not None
    counts = {label: labels.count(label) for label in labels}
    assert counts[step.parsed.values["label"]] == max(counts.values())
    assert agreement == pytest.approx(max(counts.values()) / len(labels))


def test_enums_integers_booleans_and_lists_of_these_are_compared() -> None:
    shapes = {
        "mood": Shape("word", words=("glad", "sad")), "stars": Shape("integer"), "good": Shape("boolean"),
        "tags": Shape("list", items=Shape("word", words=("a",))), "why": Shape("text"), "score": Shape("number"),
    }  # fmt: skip
    assert compared_properties(shapes, None) == ["mood", "stars", "good", "tags"]
    assert compared_properties(shapes, "label") == ["label"]


def logged(*tokens: tuple[str, float]) -> Answer:
    return Answer(text="".join(token for token, _ in tokens), logprobs=tokens)


def test_the_confidence_is_the_probability_of_the_tokens_of_the_label() -> None:
    answer = logged(('{"label": "', -1.0), ("po", math.log(0.5)), ("sitive", math.log(0.8)), ('"}', -2.0))
    assert confidence(answer, "positive") == pytest.approx(0.4)


def test_the_last_occurrence_of_the_label_in_quotes_counts() -> None:
    answer = logged(("good, I think", -3.0), ('{"label": "', 0.0), ("good", math.log(0.9)), ('"}', 0.0))
    assert confidence(answer, "good") == pytest.approx(0.9)


def test_without_a_label_the_confidence_is_the_geometric_mean_of_all_tokens() -> None:
    assert confidence(logged(("a", math.log(0.25)), ("b", 0.0)), None) == pytest.approx(0.5)


def test_without_log_probabilities_or_the_label_among_them_there_is_no_confidence() -> None:
    assert confidence(Answer(text="yes"), "yes") is None
    assert confidence(logged(("no", -1.0)), "yes") is None
