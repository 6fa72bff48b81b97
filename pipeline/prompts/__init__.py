"""Making requests: a row and a template become messages, a body, and the key of the answer."""

from .prompts import Prompts
from .templates import Row

__all__ = ["Prompts", "Row"]
