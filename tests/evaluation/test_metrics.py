"""Metrics equal those of scikit-learn and scipy; where those define none, a published table or a property holds."""

import math
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics
from sklearn.preprocessing import MultiLabelBinarizer

from pipeline.evaluation.metrics import LABELS_MOST, as_text, as_values, distance, is_right, paired_test, score, share
from pipeline.evaluation.records import PairedTest

LABELS = ["good", "bad", "so so", "süß"]
GRADES = [1, 2, 3, 4, 5]


def rows_of(values: Any) -> Any:
    return st.lists(st.tuples(values, values), min_size=1, max_size=60)


def texts(cells: Any) -> pl.Series:
    return pl.Series(cells, dtype=pl.String)


def numbers(cells: Any) -> pl.Series:
    return pl.Series(cells, dtype=pl.Float64)


def lists(cells: Any) -> pl.Series:
    return pl.Series([list(cell) for cell in cells], dtype=pl.List(pl.String))


@settings(deadline=None, max_examples=12)
@given(rows_of(st.sampled_from(LABELS)))
@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of what cannot be divided
def test_accuracy_kappa_precision_recall_and_confusion_are_those_of_scikit_learn(rows: list[tuple[str, str]]) -> None:
    gold, answer = map(list, zip(*rows, strict=True))
    scored = score(texts(gold), texts(answer), "labels", LABELS)
    seen = [label for label in LABELS if label in {*gold, *answer}]
    assert [each.label for each in scored.labels] == seen
    assert scored.accuracy.share == pytest.approx(metrics.accuracy_score(gold, answer))
    kappa = metrics.cohen_kappa_score(gold, answer)
    assert scored.kappa == (None if math.isnan(kappa) else pytest.approx(kappa))
    expected = metrics.precision_recall_fscore_support(gold, answer, labels=seen, zero_division=0)
    found = [(each.precision or 0, each.recall or 0, each.f1, each.support) for each in scored.labels]
    assert found == [pytest.approx(each) for each in zip(*expected, strict=True)]
    macro = metrics.precision_recall_fscore_support(gold, answer, average="macro", zero_division=0)[:3]
    assert scored.macro is not None
    assert (scored.macro.precision, scored.macro.recall, scored.macro.f1) == pytest.approx(macro)
    table = metrics.confusion_matrix(gold, answer, labels=seen)
    counted = {(pair.gold, pair.answer): pair.rows for pair in scored.confusion}
    assert [[counted.get((one, other), 0) for other in seen] for one in seen] == table.tolist()


@settings(deadline=None, max_examples=12)
@given(rows_of(st.sampled_from(GRADES)))
@pytest.mark.filterwarnings("ignore")
def test_weighted_kappa_error_and_rank_correlation_are_those_of_scikit_learn_and_scipy(
    rows: list[tuple[int, int]],
) -> None:
    gold, answer = map(list, zip(*rows, strict=True))
    scored = score(numbers(gold), numbers(answer), "numbers")
    assert scored.numbers is not None
    assert scored.numbers.mean_absolute_error == pytest.approx(metrics.mean_absolute_error(gold, answer))
    weighted = metrics.cohen_kappa_score(gold, answer, labels=GRADES, weights="quadratic")
    same = len({*gold, *answer}) == 1
    assert scored.numbers.quadratic_weighted_kappa == (None if same else pytest.approx(weighted, abs=1e-9))
    rho = stats.spearmanr(gold, answer).statistic
    assert scored.numbers.spearman == (None if math.isnan(rho) else pytest.approx(rho, abs=1e-9))
    assert [each.label for each in scored.labels] == [str(grade) for grade in sorted({*gold, *answer})]


@settings(deadline=None, max_examples=12)
@given(rows_of(st.frozensets(st.sampled_from(LABELS))))
@pytest.mark.filterwarnings("ignore")
def test_lists_of_labels_are_scored_as_by_scikit_learn(rows: list[tuple[frozenset[str], frozenset[str]]]) -> None:
    gold, answer = map(list, zip(*rows, strict=True))
    scored = score(lists(gold), lists(answer), "lists", LABELS)
    matrix = MultiLabelBinarizer(classes=LABELS).fit([LABELS])
    wanted, found = matrix.transform(gold), matrix.transform(answer)
    assert scored.accuracy.share == pytest.approx(metrics.accuracy_score(wanted, found))
    assert scored.mean_jaccard == pytest.approx(
        metrics.jaccard_score(wanted, found, average="samples", zero_division=1)
    )
    expected = metrics.precision_recall_fscore_support(wanted, found, zero_division=0)
    each_of = {each.label: (each.precision or 0, each.recall or 0, each.f1, each.support) for each in scored.labels}
    for label, *figures in zip(LABELS, *expected, strict=True):
        assert each_of.get(label, (0, 0, 0, 0)) == pytest.approx(tuple(figures))


def test_a_share_has_the_published_interval() -> None:
    """Newcombe, Statistics in Medicine 17 (1998), table I, method 3: Wilson's score method without correction."""
    for count, rows, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = share(count, rows)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert (share(1, 29).low, share(1, 29).high) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 3000).flatmap(lambda rows: st.tuples(st.integers(0, rows), st.just(rows))))
def test_an_interval_is_that_of_scipy_and_mirrors_that_of_the_wrong_rows(counts: tuple[int, int]) -> None:
    right, rows = counts
    found, mirrored = share(right, rows), share(rows - right, rows)
    expected = stats.binomtest(right, rows).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= found.low <= found.share <= found.high <= 1
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-12)


def paired(first_alone: int, second_alone: int, both: int = 0, neither: int = 0) -> PairedTest:
    first = [True] * first_alone + [False] * second_alone + [True] * both + [False] * neither
    second = [False] * first_alone + [True] * second_alone + [True] * both + [False] * neither
    return paired_test(pl.Series(first, dtype=pl.Boolean), pl.Series(second, dtype=pl.Boolean))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 400), st.integers(0, 400))
def test_the_paired_test_is_the_exact_binomial_one_of_scipy(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert paired(first, second, both=3).p_value == pytest.approx(expected, rel=1e-9)


def test_the_paired_test_of_very_many_rows_is_exact_too() -> None:
    assert paired(49_700, 50_300, both=1).p_value == pytest.approx(stats.binomtest(49_700, 100_000).pvalue, rel=1e-8)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_the_difference_changes_its_sign_with_the_order_of_the_jobs(first: int, second: int, both: int) -> None:
    one, other = paired(first, second, both + 1), paired(second, first, both + 1)
    assert (one.difference, one.p_value) == (-other.difference, other.p_value)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.difference == pytest.approx((second - first) / (first + second + both + 1))


@pytest.mark.parametrize(("first", "second"), [(0.1, 0.1), (0.05, 0.2), (0.3, 0.1)])
def test_the_interval_of_a_difference_holds_it_in_95_of_100_tables(first: float, second: float) -> None:
    rows, held = 18, 0.0
    for one in range(rows + 1):
        for other in range(rows + 1 - one):
            chance = stats.multinomial.pmf([one, other, rows - one - other], rows, [first, second, 1 - first - second])
            found = paired(one, other, both=rows - one - other)
            held += chance * (found.low <= second - first <= found.high)
    assert held > 0.94


def test_answers_are_right_only_if_they_are_exactly_gold_and_near_misses_are_counted() -> None:
    gold = texts(["yes", "yes", "no", "so so", "no"])
    answer = texts(["yes", "Yes", " no", "soso", "yes"])
    scored = score(gold, answer, "labels")
    assert (scored.accuracy.count, scored.near_misses) == (1, 3)


def test_texts_with_too_many_values_have_an_accuracy_and_no_labels() -> None:
    gold = texts([str(row) for row in range(LABELS_MOST + 1)])
    scored = score(gold, gold.set(gold == "7", "x"), "labels")
    assert (scored.accuracy.count, scored.labels, scored.confusion, scored.kappa) == (LABELS_MOST, (), (), None)
    free = score(numbers([0.5, 1.0]), numbers([0.5, 3.0]), "numbers")
    assert (free.labels, free.kappa, free.accuracy.count) == ((), None, 1)


def test_labels_keep_the_given_order_and_others_follow_by_frequency() -> None:
    gold, answer = texts(["b", "x", "x", "y"]), texts(["a", "x", "y", "y"])
    assert [each.label for each in score(gold, answer, "labels", ["b", "a", "c"]).labels] == ["b", "a", "x", "y"]


def test_an_undefined_precision_is_none_and_counts_as_0_in_a_mean() -> None:
    scored = score(texts(["a", "a"]), texts(["b", "b"]), "labels")
    by_name = {each.label: each for each in scored.labels}
    assert (by_name["a"].precision, by_name["a"].recall, by_name["b"].recall) == (None, 0.0, None)
    assert scored.macro is not None
    assert scored.macro.precision == 0
    assert score(texts(["a"]), texts(["a"]), "labels").kappa is None


def test_gold_is_converted_to_values_of_the_answers_kind() -> None:
    assert as_values(texts(["yes ", " ", "", None]), "labels").to_list() == ["yes ", None, None, None]
    assert as_values(texts(["True", "FALSE"]), "labels", ["true", "false"]).to_list() == ["true", "false"]
    assert as_values(pl.Series([True, False]), "labels").to_list() == ["true", "false"]
    assert as_values(texts([" 5", "4.0", "five", "nan", "inf", None]), "numbers").to_list() == [5, 4, *[None] * 4]
    assert as_values(pl.Series([3], dtype=pl.Int8), "numbers").to_list() == [3.0]
    cells = ['["a", "b"]', "[]", "a; b", "a|b", "a, b", "so, so", "", None, "[a"]
    assert as_values(texts(cells), "lists", ["so, so"]).to_list() == [
        ["a", "b"],
        [],
        *[["a", "b"]] * 3,
        ["so, so"],
        None,
        None,
        ["[a"],
    ]
    assert as_values(pl.Series([["a"], None]), "lists").to_list() == [["a"], None]
    assert as_values(texts(["[" * 100_000]), "lists").to_list() == [["[" * 100_000]]


def test_a_distance_is_a_difference_for_numbers_and_jaccards_for_lists() -> None:
    assert distance(numbers([1, None, 3]), numbers([4, 1, 3]), "numbers").to_list() == [3.0, None, 0.0]
    assert distance(lists([["a", "b"], [], ["a"]]), lists([["a"], [], ["b"]]), "lists").to_list() == [0.5, 0.0, 1.0]
    assert distance(texts(["a", "b"]), texts(["b", "b"]), "labels").to_list() == [0.0, 0.0]


def test_values_become_text_as_a_person_would_write_it() -> None:
    assert as_text(numbers([4, 2.5, None])).to_list() == ["4", "2.5", None]
    assert as_text(lists([["b", "a", "b"], []])).to_list() == ["a, b", ""]


def test_whether_a_row_is_right_is_null_where_gold_or_answer_is_missing() -> None:
    assert is_right(texts(["a", None]), texts(["a", "a"]), "labels").to_list() == [True, None]
    wanted, given_ = pl.Series([["a", "b"], None, ["a"]]), pl.Series([["b", "a"], ["a"], None])
    assert is_right(wanted, given_, "lists").to_list() == [True, None, None]
