"""Requests answered by the provider's Batch API, within a day."""

from .batch import answer_all

__all__ = ["answer_all"]
