"""The contract of an answer: checking its text, asking again, and the typed columns it fills."""

from .contract import AnswerChecker, ParsedAnswer, contract_of
from .few_shot import example_answer
from .response_format import RESPONSE_FORMATS, ContractEncoder
from .shapes import Shape
from .typed_columns import column_dtype, column_shapes, typed_cells

__all__ = [
    "RESPONSE_FORMATS",
    "AnswerChecker",
    "ContractEncoder",
    "ParsedAnswer",
    "Shape",
    "column_dtype",
    "column_shapes",
    "contract_of",
    "example_answer",
    "typed_cells",
]
