"""Answer requests now, many in flight at once: one lane for each model, each at the pace that its endpoint allows."""

from .format_fallback import FormatFallback
from .live import answer_all

__all__ = ["FormatFallback", "answer_all"]
