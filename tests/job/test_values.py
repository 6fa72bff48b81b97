"""Values with a check of their own: durations."""

import pytest

from pipeline.job.values import duration_seconds


@pytest.mark.parametrize(("text", "seconds"), [("8h", 28800), ("7h30m", 27000), ("90s", 90), ("1d2h", 93600)])
def test_a_duration_is_so_many_seconds(text: str, seconds: int) -> None:
    assert duration_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "h", "8 hours", "-1h"])
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        duration_seconds(text)
