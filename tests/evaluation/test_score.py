"""A job's answers are scored as far as they are known, and the review table lists the worst rows first."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion
from gold_jobs import ANSWERS, DOLLARS_A_ROW, FOUR, LABELS, PRICES, Ran, label

from pipeline import BadJob, Job, ThisRun, run
from pipeline.evaluation.records import JobScore
from pipeline.evaluation.score import score_job


def review_of(job: Path, tmp_path: Path, **asked: Any) -> pl.DataFrame:
    score_job(job, gold="gold", review=tmp_path / "review.parquet", **asked)
    return pl.read_parquet(tmp_path / "review.parquet")


def test_labels_are_scored_with_the_tokens_and_cost_per_right_row(ran: Ran) -> None:
    scored = score_job(ran(FOUR, ANSWERS, **LABELS, **PRICES), gold="gold")
    assert (scored.rows, scored.without_gold, scored.without_answer, scored.answer) == (4, 1, {}, "label")
    assert (scored.score.accuracy.count, scored.score.accuracy.rows, scored.accuracy_of_all) == (2, 3, None)
    assert [each.label for each in scored.score.labels] == ["yes", "no"]
    assert scored.bill.tokens == 3 * 18
    assert scored.tokens_per_right_row == 27
    assert scored.bill.cost == pytest.approx(3 * DOLLARS_A_ROW)
    assert scored.cost_per_right_row == pytest.approx(1.5 * DOLLARS_A_ROW)


def test_rows_without_an_answer_are_counted_by_status_and_as_wrong_in_a_second_accuracy(ran: Ran) -> None:
    answers = {"a": label("yes"), "b": "Hm, no?", "c": 413, "d": label("no")}
    scored = score_job(ran({**FOUR, "gold": ["yes", "no", "no", "no"]}, answers, **LABELS), gold="gold")
    assert scored.without_answer == {"invalid": 1, "failed": 1}
    assert (scored.score.accuracy.count, scored.score.accuracy.rows) == (2, 2)
    assert scored.accuracy_of_all is not None
    assert (scored.accuracy_of_all.count, scored.accuracy_of_all.rows) == (2, 4)
    assert scored.bill.cost is None


def test_a_running_job_is_scored_on_the_rows_answered_so_far(tmp_path: Path) -> None:
    pl.DataFrame({"q": [f"q{n}" for n in range(9)], "gold": ["yes"] * 9}).write_parquet(tmp_path / "in.parquet")
    seen: list[JobScore | str] = []

    def reply(_seen: Seen, _attempt: int) -> Canned:
        try:
            seen.append(score_job(tmp_path / "out.csv", gold="gold"))
        except BadJob as error:
            seen.append(str(error))
        return Canned(body=completion(label("yes")))

    with ChatServer(reply) as server:
        given = {
            "endpoint.base_url": server.url,
            "endpoint.model": "m",
            "prompt.template": "{{ q }}",
            "limits.concurrency": 1,
        }
        run(
            Job.load(
                [tmp_path / "in.parquet"],
                tmp_path / "out.csv",
                settings={**given, **LABELS},
                this_run=ThisRun(verbosity=-1),
            )
        )
    assert seen[0] == "None of the 9 rows with gold has an answer to score: 9 pending."
    assert isinstance(seen[-1], JobScore)
    assert seen[-1].without_answer == {"pending": 9 - seen[-1].score.accuracy.rows}
    assert seen[-1].accuracy_of_all is None
    assert score_job(tmp_path / "out.csv.job", gold="gold").score.accuracy.rows == 9


def test_free_text_is_scored_by_equality_and_near_misses_are_counted(ran: Ran) -> None:
    scored = score_job(ran(FOUR, {"a": "Yes", "b": "no ", "c": "no", "d": "no"}), gold="gold")
    assert (scored.answer, scored.score.accuracy.count, scored.score.near_misses) == ("answer", 1, 2)


def test_accuracy_is_computed_for_each_value_of_a_column_of_the_input_or_an_added_one(ran: Ran) -> None:
    job = ran({**FOUR, "lang": ["en", "en", None, "de"]}, ANSWERS, **LABELS)
    parts = score_job(job, gold="gold", by="lang").parts
    assert [(part.value, part.accuracy.count, part.accuracy.rows) for part in parts] == [("en", 1, 2), (None, 1, 1)]
    assert [part.value for part in score_job(job, gold="gold", by="model").parts] == ["test-model"]


def test_the_review_holds_wrong_rows_with_their_number_gold_answer_and_input(ran: Ran, tmp_path: Path) -> None:
    job = ran({**FOUR, "row": ["theirs"] * 4}, {**ANSWERS, "c": label("yes")}, **LABELS)
    review = review_of(job, tmp_path)
    assert review.columns == ["row_", "gold", "label", "answer", "q", "row"]
    assert review.row(0) == (2, "no", "yes", '{"label": "yes"}', "b", "theirs")
    assert review["row_"].to_list() == [2, 3]
    assert review_of(job, tmp_path, most=1)["row_"].to_list() == [2]


WITH_CONFIDENCE = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["yes", "no"]}, "confidence": {"type": "number"}},
    "required": ["label", "confidence"],
}


def test_the_review_begins_with_the_most_certain_errors_and_ends_with_the_least_certain_others(
    ran: Ran, tmp_path: Path
) -> None:
    sure = {"a": ("yes", 0.9), "b": ("yes", 0.6), "c": ("yes", 0.99), "d": ("no", 0.2), "e": ("no", 1.0)}
    answers = {q: json.dumps({"label": word, "confidence": number}) for q, (word, number) in sure.items()}
    rows = {"q": list("abcde"), "gold": ["yes", "no", "no", None, "no"]}
    job = ran(rows, answers, **{"answer.schema": WITH_CONFIDENCE})
    review = review_of(job, tmp_path, answer="label")
    assert review["q"].to_list() == ["c", "b", "d", "a"]
    assert review["confidence"].to_list() == [0.99, 0.6, 0.2, 0.9]


def test_of_wrong_numbers_the_farthest_from_gold_come_first(ran: Ran, tmp_path: Path) -> None:
    grade = {"type": "object", "properties": {"grade": {"type": "integer"}}, "required": ["grade"]}
    rows: dict[str, Any] = {"q": list("abcd"), "gold": [1, 2, 3, 4]}
    answers = {q: json.dumps({"grade": number}) for q, number in zip("abcd", [2, 5, 3, 2], strict=True)}
    assert review_of(ran(rows, answers, **{"answer.schema": grade}), tmp_path)["q"].to_list() == ["b", "d", "a"]


def test_of_wrong_lists_those_with_the_least_in_common_come_first(ran: Ran, tmp_path: Path) -> None:
    rows = {"q": list("abcd"), "gold": ["x; y", "x", "x; y; z", "z"]}
    said = {"a": ["x"], "b": ["y"], "c": ["x", "y"], "d": ["z"]}
    answers = {q: json.dumps({"labels": labels}) for q, labels in said.items()}
    settings = {"answer.labels": ["x", "y", "z"], "answer.multi": True}
    assert review_of(ran(rows, answers, **settings), tmp_path)["q"].to_list() == ["b", "a", "c"]


def test_a_review_never_overwrites_the_output_or_the_input(ran: Ran, tmp_path: Path) -> None:
    job = ran(FOUR, ANSWERS, **LABELS)
    before = job.read_bytes()
    with pytest.raises(BadJob, match="the job's own output"):
        score_job(job, gold="gold", review=job)
    with pytest.raises(BadJob, match="an input is never overwritten"):
        score_job(job, gold="gold", review=tmp_path / "in-out.csv.parquet")
    with pytest.raises(BadJob, match="names no format"):
        score_job(job, gold="gold", review=tmp_path / "review.doc")
    assert job.read_bytes() == before


@pytest.mark.parametrize("suffix", ["csv", "tsv.gz", "ndjson", "arrow"])
def test_a_review_is_written_in_the_format_of_its_suffix_also_if_every_answer_is_right(
    ran: Ran, tmp_path: Path, suffix: str
) -> None:
    job = ran({"q": ["a"], "gold": ["yes"]}, ANSWERS, **LABELS)
    score_job(job, gold="gold", review=tmp_path / f"review.{suffix}")
    assert (tmp_path / f"review.{suffix}").exists()


def test_a_prompt_that_contains_gold_is_reported(ran: Ran) -> None:
    assert not score_job(ran(FOUR, ANSWERS, **LABELS), gold="gold").prompt_shows_gold
    rows = {"q": ["a"], "gold": ["yes"]}
    leaking = {**LABELS, "prompt.template": "{{ q }}{{ gold }}"}
    assert score_job(ran(rows, {"ayes": label("yes")}, "other.csv", **leaking), gold="gold").prompt_shows_gold


def test_an_input_without_rows_has_nothing_to_score(ran: Ran) -> None:
    rows = {"q": pl.Series([], dtype=pl.String), "gold": pl.Series([], dtype=pl.String)}
    job = ran(rows, {}, **LABELS)  # type: ignore[arg-type]
    with pytest.raises(BadJob, match="no rows"):
        score_job(job, gold="gold")
