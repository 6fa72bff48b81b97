"""Answer requests now, many in flight at once: one lane for each model, each at the pace that its endpoint allows."""

from .live import answer_all

__all__ = ["answer_all"]
