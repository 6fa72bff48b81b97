"""Requests answered: live, in the provider's batches, or by Ray actors."""

from .context import DRAIN_SECONDS, LocalContext, lane_id
from .executor import executor

__all__ = ["DRAIN_SECONDS", "LocalContext", "executor", "lane_id"]
