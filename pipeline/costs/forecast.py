"""What requests will likely use, cost and take, by what is known: before any was sent, and after a pilot."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl

from ..job import Job
from ..records import USABLE, Answer, LearnedLimits, Record, Tally, Usage
from .prices import PriceList, expected_usage

Z_90 = 1.645
"""So many standard deviations to each side hold nine values of ten."""
BYTES_PER_TOKEN_MOST, BYTES_PER_TOKEN_LEAST = 5.0, 2.0
"""Before the first answer: English has nearly 5 bytes a token, Chinese about 2."""
COMPLETION_TOKENS_MOST = 500
"""… and a request without a limit of its own gets an answer of so many tokens at most, likely."""
PERCENTILES = (0.1, 0.5, 0.9)


class Interval(NamedTuple):
    """Where a number will lie, nine times of ten."""

    low: float
    high: float


class ForecastInputs(NamedTuple):
    """What is known of an endpoint: its prices, what was used so far, and the pace that was found out."""

    tariff: PriceList
    ledger: Tally
    lanes: Sequence[LearnedLimits | None]
    """Of each of the job's models."""


class Forecast(NamedTuple):
    """What so many requests will likely use, cost and take; None where nothing is known to tell from."""

    usage: Usage
    price: float | None
    seconds: float | None


def make_forecast(job: Job, known: ForecastInputs, request_bytes: int, requests: int) -> Forecast:
    """The likeliest use, US dollars and seconds of so many requests, of so many bytes in all."""
    ledger = known.ledger
    usage = expected_usage(ledger, request_bytes, requests, max(job.output_caps.values(), default=None))
    latency = ledger.seconds / ledger.answers if ledger.answers else None
    return Forecast(
        usage, known.tariff.expected_cost(usage), forecast_seconds(job, known.lanes, requests, usage, latency)
    )


def forecast_seconds(
    job: Job, lanes: Sequence[LearnedLimits | None], requests: int, usage: Usage, latency: float | None
) -> float | None:
    """How long so many requests take: the slowest of what the width, and each limit, told or learnt, lets through.

    The models' lanes go side by side, each with an equal share.
    """
    told, share = job.limits, requests / len(lanes)
    tokens = ((usage.prompt_tokens or 0) + (usage.completion_tokens or 0)) / len(lanes)
    paces = []
    for found in (lane if lane is not None else LearnedLimits() for lane in lanes):
        if latency is not None:
            paces.append(share * latency / (found.window or told.width))
        paces += [60 * share / limit for limit in (told.requests_per_minute, found.requests_per_minute) if limit]
        paces += [60 * tokens / limit for limit in (told.tokens_per_minute, found.tokens_per_minute) if limit]
    return max(paces, default=None)


class UsageRange(NamedTuple):
    """Between what the use and the price of requests will likely lie."""

    low: Usage
    high: Usage
    low_price: float | None
    high_price: float | None


def usage_range(
    known: ForecastInputs, request_bytes: int, requests: int, answers: Iterable[Answer], output_tokens_max: int | None
) -> UsageRange:
    """By the answers so far; before the first, by what is usual, and what the request's own limit leaves.

    `output_tokens_max`: what the request's own limit allows an answer; None if there is none.
    """
    expected = expected_usage(known.ledger, request_bytes, requests, output_tokens_max)
    given = [tokens for answer in answers if (tokens := answer.usage.billed_output_tokens) is not None]
    if known.ledger.answers and len(given) > 1:
        output = predict_total(given, requests)
        prompt = Interval(expected.prompt_tokens or 0, expected.prompt_tokens or 0)
    else:
        output = Interval(requests, requests * (output_tokens_max or COMPLETION_TOKENS_MOST))
        prompt = Interval(request_bytes / BYTES_PER_TOKEN_MOST, request_bytes / BYTES_PER_TOKEN_LEAST)
    low = Usage(round(prompt.low), round(output.low))
    high = Usage(round(prompt.high), round(output.high))
    return UsageRange(low, high, known.tariff.expected_cost(low), known.tariff.expected_cost(high))


def predict_total(sample: Sequence[float], rest: int) -> Interval:
    """Where the sum over `rest` further rows will lie, by a sample of at least two: its mean errs, and the rest varies.

    A prediction interval of the normal distribution; never below 0.
    """
    mean, spread = statistics.fmean(sample), statistics.stdev(sample)
    half = Z_90 * spread * math.sqrt(rest * rest / len(sample) + rest)
    return Interval(max(0.0, rest * mean - half), rest * mean + half)


class PilotResult(Record, frozen=True):
    """What a sample of rows tells of the rest; what cannot be told from it is None."""

    rows: int
    valid: int
    """Rows with a usable answer."""
    prompt_tokens: tuple[float, ...]
    """Percentiles, as in PERCENTILES; empty without a count."""
    output_tokens: tuple[float, ...]
    cost: Interval | None
    """US dollars of the rest."""
    seconds: Interval | None


def summarize_pilot(job: Job, lanes: Sequence[LearnedLimits | None], cells: pl.DataFrame, rest: int) -> PilotResult:
    """What the added columns of a sample's rows, without a prefix, tell of `rest` further rows."""
    latency = cells["latency_seconds"].drop_nulls().to_list()
    costs = cells["cost"].drop_nulls().to_list()
    hidden = cells["total_tokens"] - cells["prompt_tokens"]
    output = cells.select(pl.max_horizontal("completion_tokens", hidden.alias("hidden"))).to_series()
    usage = Usage(*(round(rest * _mean(column)) for column in (cells["prompt_tokens"], output)))
    pace = predict_total(latency, rest) if len(latency) > 1 and rest else None
    ends = (
        [forecast_seconds(job, lanes, rest * job.samples_per_row, usage, end / rest) for end in pace]
        if pace is not None
        else []
    )
    return PilotResult(
        rows=cells.height,
        valid=int(cells["status"].is_in(USABLE).sum()),
        prompt_tokens=_percentiles(cells["prompt_tokens"]),
        output_tokens=_percentiles(output),
        cost=predict_total(costs, rest) if len(costs) == cells.height > 1 and rest else None,
        seconds=Interval(ends[0] or 0.0, ends[1] or 0.0) if ends else None,
    )


def _percentiles(counts: pl.Series) -> tuple[float, ...]:
    found = [counts.quantile(share, "nearest") for share in PERCENTILES]
    return tuple(float(each) for each in found if each is not None)


def _mean(counts: pl.Series) -> float:
    known = counts.drop_nulls()
    return float(known.sum()) / max(1, len(known))
