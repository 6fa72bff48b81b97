"""Prices, the budget, and forecasts of what requests will cost and take."""

from .forecast import (
    Forecast,
    ForecastInputs,
    Interval,
    PilotResult,
    UsageRange,
    make_forecast,
    summarize_pilot,
    usage_range,
)
from .prices import Budget, PriceList, expected_usage, token_bytes

__all__ = [
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
