"""A job's answers are judged as they stand, against gold or another job's, and bad gold is told before any figure."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from chat_server import USAGE, Canned, ChatServer, Seen, completion, problem

from pipeline import BadJob, Job, ThisRun, run
from pipeline.evaluation.metrics import Compared, Scored
from pipeline.evaluation.score import as_json, compare_jobs, score_job

LABELS = {"answer.labels": ["yes", "no"], "answer.repairs": 0}
PRICES = {"prices.input": 1.0, "prices.output": 1.0}
DOLLARS_A_ROW = (USAGE["prompt_tokens"] + USAGE["completion_tokens"]) / 1e6

Ran = Callable[..., Path]


@pytest.fixture
def ran(tmp_path: Path) -> Ran:
    """A job that was run: `answers` by prompt, a label as JSON, a number as the status of a refusal."""

    def ran(
        rows: Mapping[str, list[Any]],
        answers: Mapping[str, str | int],
        output: str = "out.csv",
        this_run: ThisRun | None = None,
        **settings: Any,
    ) -> Path:
        source = tmp_path / f"in-{output}.parquet"
        if not source.exists():
            pl.DataFrame(rows, strict=False).write_parquet(source)
        return asked(source, answers, tmp_path / output, this_run, settings)

    return ran


def asked(
    source: Path,
    answers: Mapping[str, str | int],
    output: Path,
    this_run: ThisRun | None,
    settings: dict[str, Any],
) -> Path:
    def reply(seen: Seen, _attempt: int) -> Canned:
        answer = answers[seen.prompt]
        if isinstance(answer, int):
            return Canned(status=answer, body=problem("too long"))
        return Canned(body=completion(answer))

    with ChatServer(reply) as server:
        given = {"endpoint.base_url": server.url, "endpoint.model": "m", "prompt.template": "{{ q }}", **settings}
        run(Job.load([source], output, settings=given, this_run=this_run or ThisRun(verbosity=-1)))
    return output


def label(word: str) -> str:
    return json.dumps({"label": word})


def review_of(job: Path, tmp_path: Path, **asked: Any) -> pl.DataFrame:
    score_job(job, gold="gold", review=tmp_path / "review.parquet", **asked)
    return pl.read_parquet(tmp_path / "review.parquet")


FOUR = {"q": ["a", "b", "c", "d"], "gold": ["yes", "no", "no", None]}
ANSWERS = {"a": label("yes"), "b": label("yes"), "c": label("no"), "d": label("no")}


def test_labels_are_scored_with_what_a_right_row_took(ran: Ran) -> None:
    scored = score_job(ran(FOUR, ANSWERS, **LABELS, **PRICES), gold="gold")
    assert (scored.rows, scored.without_gold, scored.without_answer, scored.answer) == (4, 1, {}, "label")
    assert (scored.score.accuracy.count, scored.score.accuracy.rows, scored.accuracy_of_all) == (2, 3, None)
    assert [each.label for each in scored.score.labels] == ["yes", "no"]
    assert scored.bill.tokens == 3 * 18
    assert scored.tokens_per_right_row == 27
    assert scored.bill.cost == pytest.approx(3 * DOLLARS_A_ROW)
    assert scored.cost_per_right_row == pytest.approx(1.5 * DOLLARS_A_ROW)


def test_rows_without_an_answer_are_told_by_status_and_counted_as_wrong_beside(ran: Ran) -> None:
    answers = {"a": label("yes"), "b": "Hm, no?", "c": 413, "d": label("no")}
    scored = score_job(ran({**FOUR, "gold": ["yes", "no", "no", "no"]}, answers, **LABELS), gold="gold")
    assert scored.without_answer == {"invalid": 1, "failed": 1}
    assert (scored.score.accuracy.count, scored.score.accuracy.rows) == (2, 2)
    assert scored.accuracy_of_all is not None
    assert (scored.accuracy_of_all.count, scored.accuracy_of_all.rows) == (2, 4)
    assert scored.bill.cost is None


def test_a_row_equal_to_an_earlier_one_is_scored_and_took_nothing(ran: Ran) -> None:
    scored = score_job(
        ran({"q": ["a", "a", "b"], "gold": ["yes", "no", "no"]}, ANSWERS, **LABELS, **PRICES), gold="gold"
    )
    assert (scored.score.accuracy.count, scored.score.accuracy.rows) == (1, 3)
    assert scored.bill.tokens == 2 * 18
    assert scored.bill.cost == pytest.approx(2 * DOLLARS_A_ROW)


def test_a_job_that_is_being_asked_is_scored_as_far_as_it_is(tmp_path: Path) -> None:
    pl.DataFrame({"q": [f"q{n}" for n in range(9)], "gold": ["yes"] * 9}).write_parquet(tmp_path / "in.parquet")
    seen: list[Scored | str] = []

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
    assert isinstance(seen[-1], Scored)
    assert seen[-1].without_answer == {"pending": 9 - seen[-1].score.accuracy.rows}
    assert seen[-1].accuracy_of_all is None
    assert score_job(tmp_path / "out.csv.job", gold="gold").score.accuracy.rows == 9


def test_free_text_is_scored_by_its_text_and_slips_of_case_are_told(ran: Ran) -> None:
    scored = score_job(ran(FOUR, {"a": "Yes", "b": "no ", "c": "no", "d": "no"}), gold="gold")
    assert (scored.answer, scored.score.accuracy.count, scored.score.near_misses) == ("answer", 1, 2)


SCHEMA = {
    "type": "object",
    "properties": {
        "grade": {"type": "integer"},
        "is_ad": {"type": "boolean"},
        "topics": {"type": "array", "items": {"type": "string", "enum": ["price", "size"]}},
    },
    "required": ["grade", "is_ad", "topics"],
}


def typed(grade: int, is_ad: bool, *topics: str) -> str:
    return json.dumps({"grade": grade, "is_ad": is_ad, "topics": topics})


def test_each_typed_column_is_scored_by_its_kind(ran: Ran) -> None:
    rows = {
        "q": ["a", "b", "c"],
        "grade_gold": ["5", "3", " 1"],
        "ad_gold": ["True", "false", "FALSE"],
        "topics_gold": ["price; size", '["size"]', "[]"],
    }
    answers = {"a": typed(5, True, "size", "price"), "b": typed(1, True, "price"), "c": typed(1, False)}
    job = ran(rows, answers, **{"answer.schema": SCHEMA})
    grade = score_job(job, gold="grade_gold", answer="grade").score
    assert grade.numbers is not None
    assert (grade.kind, grade.accuracy.count, grade.numbers.mean_absolute_error) == ("numbers", 2, pytest.approx(2 / 3))
    assert score_job(job, gold="ad_gold", answer="is_ad").score.accuracy.count == 2
    topics = score_job(job, gold="topics_gold", answer="topics").score
    assert (topics.kind, topics.accuracy.count, topics.mean_jaccard) == ("lists", 2, pytest.approx(2 / 3))
    assert [(each.label, each.support) for each in topics.labels] == [("price", 1), ("size", 2)]
    with pytest.raises(BadJob, match="Name the one to judge: --answer grade"):
        score_job(job, gold="grade_gold")
    with pytest.raises(BadJob, match=r"no such column of answers; did you mean 'grade'"):
        score_job(job, gold="grade_gold", answer="grad")
    with pytest.raises(BadJob, match=r"since grade is a number:\n  'True' in 1 row \(1\)\n  'false'"):
        score_job(job, gold="ad_gold", answer="grade")
    with pytest.raises(BadJob, match=r"one of price, size:\n  'True' in 1 row"):
        score_job(job, gold="ad_gold", answer="topics")


def test_gold_that_no_answer_can_be_is_told_with_its_rows_and_no_figure(ran: Ran) -> None:
    rows = {"q": list("abcdefgh"), "gold": ["Yes", "yes", "no", "nno", "Yes", "Yes", "Yes", "Yes"]}
    job = ran(rows, dict.fromkeys(rows["q"], label("yes")), **LABELS)
    with pytest.raises(BadJob) as told:
        score_job(job, gold="gold")
    assert str(told.value).splitlines()[:3] == [
        "--gold gold: values that no answer can be, since label is one of yes, no:",
        "  'Yes' in 5 rows (1, 5, 6, 7, …); did you mean 'yes'?",
        "  'nno' in 1 row (4); did you mean 'no'?",
    ]
    assert f"`pipeline resume {job}`" in str(told.value)


def test_columns_that_are_not_there_are_told_with_the_near_name(ran: Ran) -> None:
    job = ran({**FOUR, "none": [None] * 4, "odd": [{"a": 1}] * 4}, ANSWERS, **LABELS)
    with pytest.raises(BadJob, match=r"--gold glod: the input has no such column; did you mean 'gold'\?"):
        score_job(job, gold="glod")
    with pytest.raises(BadJob, match=r"--by god: there is no such column; did you mean 'gold'\?"):
        score_job(job, gold="gold", by="god")
    with pytest.raises(BadJob, match="empty in all of 4 rows"):
        score_job(job, gold="none")
    with pytest.raises(BadJob, match="Gold is a text, a number or a list of labels"):
        score_job(job, gold="odd")


def test_accuracy_is_told_for_each_value_of_a_column_of_the_input_or_added(ran: Ran) -> None:
    job = ran({**FOUR, "lang": ["en", "en", None, "de"]}, ANSWERS, **LABELS)
    parts = score_job(job, gold="gold", by="lang").parts
    assert [(part.value, part.accuracy.count, part.accuracy.rows) for part in parts] == [("en", 1, 2), (None, 1, 1)]
    assert [part.value for part in score_job(job, gold="gold", by="model").parts] == ["test-model"]


def test_a_prefix_and_left_out_columns_change_no_figure(ran: Ran) -> None:
    settings = {**LABELS, "output.prefix": "m_", "output.columns": ["status"]}
    job = ran({**FOUR, "label": ["theirs"] * 4}, ANSWERS, **settings)
    assert score_job(job, gold="gold").score.accuracy.count == 2
    assert score_job(job, gold="gold", answer="m_label").score.accuracy.count == 2


def test_the_review_holds_what_disagrees_with_row_gold_answer_and_input(ran: Ran, tmp_path: Path) -> None:
    job = ran({**FOUR, "row": ["theirs"] * 4}, {**ANSWERS, "c": label("yes")}, **LABELS)
    review = review_of(job, tmp_path)
    assert review.columns == ["row_", "gold", "label", "answer", "q", "row"]
    assert review.row(0) == (2, "no", "yes", '{"label": "yes"}', "b", "theirs")
    assert review["row_"].to_list() == [2, 3]
    assert review_of(job, tmp_path, most=1)["row_"].to_list() == [2]


SURE = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["yes", "no"]}, "confidence": {"type": "number"}},
    "required": ["label", "confidence"],
}


def test_the_review_begins_with_the_surest_errors_and_ends_with_the_least_sure_others(ran: Ran, tmp_path: Path) -> None:
    sure = {"a": ("yes", 0.9), "b": ("yes", 0.6), "c": ("yes", 0.99), "d": ("no", 0.2), "e": ("no", 1.0)}
    answers = {q: json.dumps({"label": word, "confidence": number}) for q, (word, number) in sure.items()}
    rows = {"q": list("abcde"), "gold": ["yes", "no", "no", None, "no"]}
    job = ran(rows, answers, **{"answer.schema": SURE})
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


def test_a_review_never_takes_the_place_of_the_output_or_the_input(ran: Ran, tmp_path: Path) -> None:
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
def test_a_review_is_written_in_the_format_of_its_suffix_also_when_all_is_right(
    ran: Ran, tmp_path: Path, suffix: str
) -> None:
    job = ran({"q": ["a"], "gold": ["yes"]}, ANSWERS, **LABELS)
    score_job(job, gold="gold", review=tmp_path / f"review.{suffix}")
    assert (tmp_path / f"review.{suffix}").exists()


def test_a_prompt_that_shows_gold_is_noticed(ran: Ran) -> None:
    assert not score_job(ran(FOUR, ANSWERS, **LABELS), gold="gold").prompt_shows_gold
    rows = {"q": ["a"], "gold": ["yes"]}
    leaking = {**LABELS, "prompt.template": "{{ q }}{{ gold }}"}
    assert score_job(ran(rows, {"ayes": label("yes")}, "other.csv", **leaking), gold="gold").prompt_shows_gold


def test_an_input_without_rows_has_nothing_to_score(ran: Ran) -> None:
    rows = {"q": pl.Series([], dtype=pl.String), "gold": pl.Series([], dtype=pl.String)}
    job = ran(rows, {}, **LABELS)  # type: ignore[arg-type]
    with pytest.raises(BadJob, match="no rows"):
        score_job(job, gold="gold")


def test_the_figures_as_json_keep_their_shape(ran: Ran) -> None:
    job = ran(FOUR, ANSWERS, **LABELS)
    held = json.loads("".join(as_json(score_job(job, gold="gold", by="gold"))))
    assert list(held) == list(Scored.__struct_fields__)
    assert held["score"]["accuracy"] == {
        "count": 2,
        "rows": 3,
        "share": 2 / 3,
        "low": held["score"]["accuracy"]["low"],
    } | {"high": held["score"]["accuracy"]["high"]}
    assert held["score"]["confusion"][0] == {"gold": "no", "answer": "no", "rows": 1}
    assert list(json.loads("".join(as_json(compare_jobs(job, job))))) == list(Compared.__struct_fields__)


# ---- two jobs


@pytest.fixture
def two(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Two jobs over one input, or over each its own."""

    def two(
        first: Mapping[str, str | int], second: Mapping[str, str | int], *rows: Mapping[str, list[Any]], **settings: Any
    ) -> tuple[Path, Path]:
        jobs = []
        for at, answers in enumerate((first, second)):
            source = tmp_path / f"in{at if len(rows) > 1 else ''}.parquet"
            pl.DataFrame(rows[min(at, len(rows) - 1)]).write_parquet(source)
            jobs.append(asked(source, answers, tmp_path / f"out{at}.csv", None, {**LABELS, **settings}))
        return jobs[0], jobs[1]

    return two


Two = Callable[..., tuple[Path, Path]]


def test_two_jobs_over_the_same_input_are_compared_row_by_row(two: Two) -> None:
    jobs = two(ANSWERS, {**ANSWERS, "b": label("no"), "d": "Hm."}, FOUR, **PRICES)
    found = compare_jobs(*jobs, gold="gold")
    assert (found.matched, found.answered, found.agreement.count, found.matched_by) == (4, 3, 2, None)
    assert [(each.first, each.second, each.rows) for each in found.changes] == [("yes", "no", 1)]
    assert found.kappa == pytest.approx(0.4)
    assert (found.first.answered, found.second.answered) == (4, 3)
    assert found.first.bill.cost == pytest.approx(4 * DOLLARS_A_ROW)
    assert found.first.accuracy is not None
    assert found.second.accuracy is not None
    assert (found.first.accuracy.count, found.second.accuracy.count) == (2, 3)
    assert found.test is not None
    assert (found.test.first_alone, found.test.second_alone, found.test.p_value) == (0, 1, 1.0)
    assert found.test.difference == pytest.approx(1 / 3)


def test_a_pilot_is_compared_on_the_rows_that_it_has(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pl.DataFrame({"q": list("abcd")}).write_parquet(source)
    whole = asked(source, ANSWERS, tmp_path / "whole.csv", None, dict(LABELS))
    answers = {q: label("no") for q in "abcd"}
    pilot = asked(source, answers, tmp_path / "pilot.csv", ThisRun(sample=2, seed=4, verbosity=-1), dict(LABELS))
    drawn = pl.read_csv(pilot)["q"].to_list()
    assert drawn != ["a", "b"]
    found = compare_jobs(whole, pilot)
    assert (found.matched, found.first.rows, found.second.rows) == (2, 4, 2)
    assert found.agreement.count == sum(ANSWERS[q] == label("no") for q in drawn)


def test_rows_of_other_inputs_are_matched_by_a_key_alone(two: Two) -> None:
    moved = {"q": ["c", "b", "z"], "id": [3, 2, 9], "gold": ["no", "no", "no"]}
    jobs = two(
        ANSWERS, {**ANSWERS, "c": label("yes"), "z": label("no")}, {"q": list("abcd"), "id": [1, 2, 3, 4]}, moved
    )
    with pytest.raises(BadJob, match=r"--key COLUMN\. Both have q, id\."):
        compare_jobs(*jobs)
    found = compare_jobs(*jobs, key="id", gold="gold")
    assert (found.matched, found.agreement.count, found.matched_by) == (2, 1, "id")
    assert found.first.accuracy is not None
    assert (found.first.accuracy.count, found.first.accuracy.rows) == (1, 2)
    with pytest.raises(BadJob, match=r"--key ID: the input of .* has no such column"):
        compare_jobs(*jobs, key="ID")


def test_a_key_that_tells_no_rows_apart_is_refused(two: Two) -> None:
    jobs = two(ANSWERS, ANSWERS, {"q": ["a", "b", "c"], "id": ["x", "y", "x"], "part": [None, "1", "2"]})
    with pytest.raises(BadJob, match=r"it does not tell 2 rows apart, such as row 1 \(x\)"):
        compare_jobs(*jobs, key="id")
    with pytest.raises(BadJob, match=r"it does not tell 1 rows? apart, such as row 1 \(empty\)"):
        compare_jobs(*jobs, key="part")


def test_jobs_without_a_row_in_common_or_without_gold_are_told(two: Two) -> None:
    jobs = two(ANSWERS, {"a": "Hm.", "b": "Hm."}, {"q": ["a", "b"], "gold": [None, None], "odd": ["Yes", "no"]})
    with pytest.raises(BadJob, match="Of 2 rows that are in both jobs, none is answered in both"):
        compare_jobs(*jobs)
    with pytest.raises(BadJob, match="--gold gld: the input has no such column"):
        compare_jobs(*jobs, gold="gld")
    with pytest.raises(BadJob, match="'Yes' in 1 row"):
        compare_jobs(jobs[0], jobs[0], gold="odd")
    with pytest.raises(BadJob, match="empty in all 2 rows"):
        compare_jobs(jobs[0], jobs[0], gold="gold")
