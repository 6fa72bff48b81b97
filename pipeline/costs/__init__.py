"""Prices of models, the budget of a job, and forecasts of the tokens, cost and time of requests."""

from .budget import Budget
from .forecast import (
    PILOT_COLUMNS,
    Forecast,
    ForecastInputs,
    Interval,
    PilotResult,
    UsageRange,
    make_forecast,
    summarize_pilot,
    usage_range,
)
from .prices import BYTES_PER_TOKEN, PriceList, expected_usage, token_bytes

__all__ = [
    "BYTES_PER_TOKEN",
    "PILOT_COLUMNS",
    "Budget",
    "Forecast",
    "ForecastInputs",
    "Interval",
    "PilotResult",
    "PriceList",
    "UsageRange",
    "expected_usage",
    "make_forecast",
    "summarize_pilot",
    "token_bytes",
    "usage_range",
]
