"""Requests answered by Ray actors, on this machine or a cluster."""

from .fleet import answer_all

__all__ = ["answer_all"]
