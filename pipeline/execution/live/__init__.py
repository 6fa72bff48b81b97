"""Requests answered now, many in flight at once."""

from .live import answer_all

__all__ = ["answer_all"]
