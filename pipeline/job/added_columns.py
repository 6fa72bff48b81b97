"""The columns that a run adds to the input's, beside the typed columns of the answer: each is declared once, here."""

from typing import Literal

from ..records import Record

Kind = Literal["text", "integer", "number", "datetime", "list"]
"""What a column holds, in the words of `answers.Shape`; a list holds texts."""
When = Literal["always", "samples", "logprobs", "contract", "reported"]
"""In which outputs a column is: in all, or with several samples or models, `answer.logprobs`, or a contract; or where
an answer fills it and neither the input nor the answer's own columns have its name."""


class AddedColumn(Record, frozen=True):
    """One column that a run adds. Every one of them may hold null."""

    name: str
    """Without `output.prefix`."""
    kind: Kind
    description: str
    """For people: one line."""
    when: When = "always"


ADDED_COLUMNS = (
    AddedColumn("answer", "text", "the model's text, as it came"),
    AddedColumn(
        "agreement", "number", "the share of a row's answers that hold the same as the one shown", when="samples"
    ),
    AddedColumn("opinions", "list", "each of the row's answers", when="samples"),
    AddedColumn(
        "confidence",
        "number",
        "the probability of the label, from 0 to 1; of other answers, of their tokens on average",
        when="logprobs",
    ),
    AddedColumn(
        "repaired",
        "text",
        "what made the answer fit its labels or schema: `spelling`, `unwrapped`, `fence`, `prose`, `json-repair`, "
        "`asked again`, or the field that it was taken from, as `reasoning_content`",
        when="contract",
    ),
    AddedColumn("status", "text", "how the row ended: exactly one of the statuses"),
    AddedColumn("error", "text", "why there is no answer, as `kind: the server's words`"),
    AddedColumn("finish_reason", "text", "why the model stopped, in OpenAI's words (`stop`, `length`, …)"),
    AddedColumn("model", "text", "the model that answered, as the endpoint reported it"),
    AddedColumn("prompt_tokens", "integer", "as the endpoint reported them"),
    AddedColumn("completion_tokens", "integer", "as the endpoint reported them"),
    AddedColumn("reasoning_tokens", "integer", "as the endpoint reported them"),
    AddedColumn("cached_tokens", "integer", "as the endpoint reported them"),
    AddedColumn("total_tokens", "integer", "as the endpoint reported them"),
    AddedColumn("cost", "number", "US dollars paid for the row, failed attempts included; null if a price is unknown"),
    AddedColumn("latency_seconds", "number", "how long the last attempt for the shown answer took"),
    AddedColumn("attempts", "integer", "HTTP requests sent for the row, follow-ups and repeats included"),
    AddedColumn("asked_at", "datetime", "when the last attempt for the shown answer was sent, in UTC"),
    AddedColumn(
        "settings", "text", "a short code of the settings that the answer was asked for with: 8 hexadecimal digits"
    ),
    AddedColumn("reasoning", "text", "the model's visible thoughts, from whatever field they came in", when="reported"),
    AddedColumn("tool_calls", "text", "the answer's tool calls as JSON", when="reported"),
    AddedColumn("citations", "list", "the addresses of the answer's sources", when="reported"),
    AddedColumn("tier", "text", "the service tier that answered, as `flex`", when="reported"),
    AddedColumn("served_by", "text", "who answered, where a gateway tells it", when="reported"),
    AddedColumn(
        "cache_write_tokens",
        "integer",
        "prompt tokens that the endpoint wrote to its cache, at a higher price",
        when="reported",
    ),
)
"""All of them, in the output's order. The typed columns of the answer stand after `answer`."""
