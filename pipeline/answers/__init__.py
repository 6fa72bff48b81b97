"""The contract of an answer: how it is sent, checked and repaired, and the typed columns that it fills."""

from .contract import ParsedAnswer, contract_of
from .few_shot import example_answer
from .follow_up import AnswerChecker
from .request_body import decode_body
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
    "decode_body",
    "example_answer",
    "typed_cells",
]
