"""A row and a template become requests with their keys."""

from .prompts import Prompts
from .templates import Row

__all__ = ["Prompts", "Row"]
