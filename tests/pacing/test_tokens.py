"""The estimate of tokens from the size of a request."""

import random

import pytest

from pipeline.pacing.tokens import TokenEstimate
from pipeline.records import Usage


@pytest.mark.parametrize(("tokens_per_byte", "frame"), [(0.23, 9), (0.47, 4), (0.6, 30)])
def test_the_estimate_calibrates_itself_to_a_percent_or_two(tokens_per_byte: float, frame: int) -> None:
    rng, estimate = random.Random(2), TokenEstimate()

    def row() -> tuple[int, Usage]:
        size = round(rng.lognormvariate(6, 0.6))
        return size, Usage(round(frame + size * tokens_per_byte * rng.gauss(1, 0.05)), 20)

    for _ in range(100):
        estimate.learn(*row())
    rows = [row() for _ in range(1000)]
    expected = sum(estimate.tokens(size)[0] for size, _ in rows)
    used = sum((usage.prompt_tokens or 0) + 20 for _, usage in rows)
    assert expected == pytest.approx(used, rel=0.02)


def test_rows_of_one_size_are_estimated_by_their_ratio() -> None:
    estimate = TokenEstimate()
    for _ in range(20):
        estimate.learn(1000, Usage(300, 0))
    assert estimate.tokens(1000)[0] == pytest.approx(300)
    assert estimate.tokens(2000)[0] == pytest.approx(600)


def test_the_high_estimate_is_a_high_quantile_of_the_completions() -> None:
    rng, estimate = random.Random(3), TokenEstimate(0.0, 0.0)
    for _ in range(300):
        estimate.learn(100, Usage(None, rng.randrange(100)))
    likely, most = estimate.tokens(100)
    assert likely == pytest.approx(50, abs=8)
    assert most == pytest.approx(80, abs=8)


def test_until_the_first_answer_the_estimate_is_the_guess_that_was_given() -> None:
    assert TokenEstimate(0.25, 100.0).tokens(400) == (200.0, 200.0)
