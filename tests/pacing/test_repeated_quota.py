"""A quota whose wait is always the whole period is known by two 429s after the same number at another pace."""

import pytest

from pipeline.pacing.repeated_quota import RepeatedQuota


@pytest.mark.parametrize(
    ("first", "second", "limit"),
    [
        ((600, 0.0, 10.0, 60.0), (600, 70.0, 115.0, 60.0), 600.0),
        ((100, 0.0, 1.0, 10.0), (101, 11.0, 20.0, 10.0), 606.0),
        ((600, 0.0, 10.0, None), (600, 61.0, 108.0, None), 600 / 61 * 60),
        ((600, 0.0, 10.0, 60.0), (900, 70.0, 115.0, 60.0), None),  # a bucket, which filled meanwhile
        ((600, 0.0, 10.0, None), (900, 61.0, 108.0, None), None),
        ((600, 0.0, 10.0, 50.0), (600, 60.0, 105.0, 15.0), None),  # a window that says how long it still lasts
        ((600, 0.0, 40.0, 20.0), (600, 60.0, 100.5, 20.0), None),  # the same at the same pace: it may be such a window
        ((600, 0.0, 10.0, None), (600, 70.0, 115.0, 60.0), None),
        ((5, 0.0, 1.0, 60.0), (5, 61.0, 91.0, 60.0), None),
        ((600, 0.0, 1.0, 1.0), (600, 2.0, 47.0, 1.0), None),
    ],
)
def test_a_quota_is_told_from_a_bucket_and_from_an_honest_window(
    first: tuple[int, float, float, float | None], second: tuple[int, float, float, float | None], limit: float | None
) -> None:
    quota = RepeatedQuota()
    assert quota.on_limit_hit(*first) is None
    few = first[0] // 100
    assert quota.on_limit_hit(first[0] + few, 20.0, 21.0, first[3]) is None  # it is the same quota still
    total = first[0] + second[0]
    assert quota.on_limit_hit(total, *second[1:]) == (None if limit is None else pytest.approx(limit))
