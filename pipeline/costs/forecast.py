"""Forecasts of the tokens, cost and time of requests: before any was sent, and after a pilot."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import polars as pl
from msgspec.structs import replace

from ..job import Job, Limits
from ..records import USABLE, Answer, LearnedLimits, Record, Tally, Usage
from .prices import PriceList, expected_usage

Z_90 = 1.645
"""Number of standard deviations to each side of the mean that contain 90 % of a normal distribution."""

BYTES_PER_TOKEN_MOST, BYTES_PER_TOKEN_LEAST = 5.0, 2.0
"""Bytes of text per token, assumed before the first answer. English has nearly 5, Chinese about 2."""

COMPLETION_TOKENS_MOST = 500
"""The longest likely answer, in tokens, to a request that sets no limit; assumed before the first answer."""

CACHED_TOKENS_MIN = 1024
"""The shortest prompt that OpenAI writes to its cache, at a higher price, without being asked. Before the first answer
it is not known whether an endpoint does so."""

PERCENTILES = (0.1, 0.5, 0.9)
"""The percentiles of token counts that a PilotResult gives."""


class Interval(NamedTuple):
    """A range that contains a predicted number with a probability of 90 %."""

    low: float
    high: float


class ForecastInputs(NamedTuple):
    """What a forecast is made from: prices, the usage so far, and the learned limits."""

    prices: PriceList
    ledger: Tally
    lanes: Sequence[LearnedLimits | None]
    """The learned limits for each of the job's models, in their order; None for a model without any."""


class Forecast(NamedTuple):
    """The expected tokens, cost and time of a number of requests."""

    usage: Usage
    price: float | None
    """US dollars; None if a price is unknown."""
    seconds: float | None
    """None if neither a latency nor a rate limit is known."""


def make_forecast(job: Job, known: ForecastInputs, request_bytes: int, requests: int) -> Forecast:
    """Forecast a number of requests. `request_bytes`: the `token_bytes` of all of them together."""
    ledger = known.ledger
    usage = expected_usage(ledger, request_bytes, requests, max(job.output_caps.values(), default=None))
    latency = ledger.seconds / ledger.answers if ledger.answers else None
    seconds = forecast_seconds(job.limits, known.lanes, requests, usage, latency)
    return Forecast(usage, known.prices.expected_cost(usage, requests), seconds)


def forecast_seconds(
    limits: Limits, lanes: Sequence[LearnedLimits | None], requests: int, usage: Usage, latency: float | None
) -> float | None:
    """Seconds that a number of requests will take, as the slowest limit allows; None if no limit is known.

    The limits are those of `[limits]`, the learned ones, and the window with the mean latency of a request, in seconds.
    The lanes run side by side, each with an equal share of the requests.
    """
    share = requests / len(lanes)
    tokens = ((usage.prompt_tokens or 0) + (usage.completion_tokens or 0)) / len(lanes)
    seconds = []
    for learned in (lane if lane is not None else LearnedLimits() for lane in lanes):
        if latency is not None:
            seconds.append(share * latency / (learned.window or limits.width))
        seconds += [60 * share / rate for rate in (limits.requests_per_minute, learned.requests_per_minute) if rate]
        seconds += [60 * tokens / rate for rate in (limits.tokens_per_minute, learned.tokens_per_minute) if rate]
    return max(seconds, default=None)


class UsageRange(NamedTuple):
    """The likely range of the tokens and the cost of a number of requests."""

    low: Usage
    high: Usage
    low_price: float | None
    """US dollars; None if a price is unknown."""
    high_price: float | None
    """US dollars; None if a price is unknown."""


def usage_range(
    known: ForecastInputs, request_bytes: int, requests: int, answers: Iterable[Answer], output_tokens_max: int | None
) -> UsageRange:
    """Predict the range from the answers so far; before the first answer, from usual sizes of tokens and answers.

    `request_bytes`: the `token_bytes` of all requests together. `output_tokens_max`: the limit that a request sets for
    its answer, in tokens; None if it sets none.
    """
    expected = expected_usage(known.ledger, request_bytes, requests, output_tokens_max)
    output_tokens = [tokens for answer in answers if (tokens := answer.usage.billed_output_tokens) is not None]
    if known.ledger.answers and len(output_tokens) > 1:
        output = predict_total(output_tokens, requests)
        prompt = Interval(expected.prompt_tokens or 0, expected.prompt_tokens or 0)
    else:
        output = Interval(requests, requests * (output_tokens_max or COMPLETION_TOKENS_MOST))
        prompt = Interval(request_bytes / BYTES_PER_TOKEN_MOST, request_bytes / BYTES_PER_TOKEN_LEAST)
    low = replace(expected, prompt_tokens=round(prompt.low), completion_tokens=round(output.low))
    high = replace(expected, prompt_tokens=round(prompt.high), completion_tokens=round(output.high))
    if not known.ledger.answers and prompt.high >= CACHED_TOKENS_MIN * requests:
        high = replace(high, cache_write_tokens=round(prompt.high))
    prices = (known.prices.expected_cost(end, requests) for end in (low, high))
    return UsageRange(low, high, *prices)


def predict_total(sample: Sequence[float], rest: int) -> Interval:
    """Predict the sum over `rest` further values from a sample of at least two.

    This is the 90 % prediction interval for normally distributed values, cut off below 0. Its width has two parts: the
    error of the sample's mean, and the variance of the further values.
    """
    mean, deviation = statistics.fmean(sample), statistics.stdev(sample)
    half_width = Z_90 * deviation * math.sqrt(rest * rest / len(sample) + rest)
    return Interval(max(0.0, rest * mean - half_width), rest * mean + half_width)


PILOT_COLUMNS = ("status", "prompt_tokens", "completion_tokens", "total_tokens", "cost", "latency_seconds")
"""The added columns that `summarize_pilot` needs."""


class PilotResult(Record, frozen=True):
    """What a pilot's sample of rows shows, and what it predicts for the rest of the table."""

    rows: int
    """Number of rows in the sample."""
    valid: int
    """Number of those rows with a usable answer."""
    prompt_tokens: tuple[float, ...]
    """Tokens per row at each of PERCENTILES; empty if no row has a count."""
    output_tokens: tuple[float, ...]
    """Tokens per row at each of PERCENTILES; empty if no row has a count."""
    cost: Interval | None
    """US dollars that the rest will cost; None if it cannot be predicted."""
    seconds: Interval | None
    """How long the rest will take; None if it cannot be predicted."""


def summarize_pilot(job: Job, lanes: Sequence[LearnedLimits | None], cells: pl.DataFrame, rest: int) -> PilotResult:
    """Summarize a pilot, and predict the cost and time of the `rest` of the table's rows.

    `cells`: the columns PILOT_COLUMNS of the sample's rows, named without a prefix.
    """
    latency = cells["latency_seconds"].drop_nulls().to_list()
    costs = cells["cost"].drop_nulls().to_list()
    hidden = cells["total_tokens"] - cells["prompt_tokens"]
    output = cells.select(pl.max_horizontal("completion_tokens", hidden.alias("hidden"))).to_series()
    prompt_tokens, output_tokens = (round(rest * _mean(column)) for column in (cells["prompt_tokens"], output))
    usage = Usage(prompt_tokens, output_tokens)
    ends: list[float | None] = []
    if len(latency) > 1 and rest:
        requests = rest * job.samples_per_row
        means = [total / rest for total in predict_total(latency, rest)]
        ends = [forecast_seconds(job.limits, lanes, requests, usage, mean) for mean in means]
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
