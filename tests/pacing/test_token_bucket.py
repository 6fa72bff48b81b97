"""A token bucket fills at its rate up to its capacity, and may go into debt."""

import math

from pipeline.pacing.token_bucket import TokenBucket


def test_a_bucket_refills_at_its_rate_up_to_its_capacity() -> None:
    bucket = TokenBucket(0.0, rate=10.0, capacity=20.0)
    bucket.refill(1.0)
    assert bucket.level == 10
    bucket.refill(60.0)
    assert bucket.level == 20


def test_a_bucket_in_debt_says_how_long_its_refill_takes() -> None:
    bucket = TokenBucket(0.0, rate=10.0, capacity=20.0)
    bucket.level -= 25
    assert bucket.seconds_until(0) == 2.5
    assert bucket.seconds_until(5) == 3
    bucket.refill(4.0)
    assert bucket.seconds_until(0) <= 0


def test_a_bucket_without_a_rate_never_binds() -> None:
    bucket = TokenBucket(0.0)
    bucket.level -= 1e9
    bucket.refill(1.0)
    assert (bucket.rate, bucket.seconds_until(1)) == (math.inf, 0)
