"""An actor's share of a job: rates are divided, what the run checks is not passed on, and no file is."""

import msgspec
import pytest
from builders import job
from msgspec.structs import replace

from pipeline.execution.ray.share import NEVER_REACHED_COST, job_for_actor, scaled, share_of_limits
from pipeline.job.job import Job
from pipeline.records import LearnedLimits


def test_rates_and_concurrency_are_divided_and_an_actor_may_send_at_least_one() -> None:
    whole = job(limits__requests_per_minute=600, limits__tokens_per_minute=9000, limits__concurrency=10)
    share = share_of_limits(whole.limits, 1 / 4)
    assert (share["requests_per_minute"], share["tokens_per_minute"], share["concurrency"]) == (150, 2250, 2)
    assert share_of_limits(job(limits__concurrency=2).limits, 1 / 4)["concurrency"] == 1


def test_no_limit_is_divided_into_none() -> None:
    share = share_of_limits(job().limits, 1 / 4)
    assert (share["requests_per_minute"], share["tokens_per_minute"], share["concurrency"]) == (None, None, "auto")


def test_what_the_run_itself_checks_stops_no_actor() -> None:
    priced = {"prices__input": 1.0, "prices__output": 1.0, "parameters__max_tokens": 5}
    whole = job(limits__max_cost=2.0, limits__max_runtime="1h", limits__max_failures=3, **priced)
    share = share_of_limits(whole.limits, 1 / 4)
    assert (share["max_cost"], share["max_runtime"], share["max_failures"]) == (NEVER_REACHED_COST, None, None)
    assert share_of_limits(job().limits, 1 / 4)["max_cost"] is None


def test_what_one_actor_learned_times_all_actors_is_what_the_endpoint_allows() -> None:
    whole = LearnedLimits(600.0, None, 10, age_seconds=5.0, response_format="json_object", respelled="max_tokens")
    part = scaled(whole, 1 / 4)
    assert part == replace(whole, requests_per_minute=150.0, window=3)  # a window is rounded up
    assert scaled(part, 4) == replace(whole, window=12)


def test_an_actor_gets_the_settings_and_the_headers_but_no_file() -> None:
    whole = job(endpoint__headers={"x-team": "blue"}, limits__requests_per_minute=600)
    sent = msgspec.json.decode(job_for_actor(whole, 1 / 4))
    assert "inputs" not in sent
    assert "output_file" not in sent
    received = Job.model_validate({**sent, "inputs": ("-",)})
    assert received.endpoint == whole.endpoint
    assert received.limits.requests_per_minute == pytest.approx(150)
