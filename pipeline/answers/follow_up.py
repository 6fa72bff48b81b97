"""Check an answer against the job's contract, and make the follow-up request if there is one.

A follow-up is a repair (the same chat with the answer and what is wrong with it) or more room (the same request with a
larger `max_tokens`, after a truncated answer).
"""

import hashlib
from typing import Any

from msgspec.structs import replace

from ..job import Job
from ..records import Answer, Outcome, Request, Status
from ..text import canonical_json, compact_json
from .contract import ParsedAnswer, contract_of
from .request_body import decode_body, decode_messages

REPEATED_CHARACTERS_MAX = 8_000
"""Characters of an answer that are shown to the model again in a repair."""
ERROR_CHARACTERS_MAX = 2_000
"""Characters of the error that are shown to the model in a repair."""


class AnswerChecker:
    """Checks the outcomes of one job's requests, and makes their follow-ups."""

    def __init__(self, job: Job) -> None:
        """Raises BadJob for an `answer.schema` that is no JSON Schema, and for examples that do not fit it."""
        self.contract = contract_of(job)
        self._repairs_max = job.answer.repairs
        self._grown_max_tokens = job.answer.grow_on_truncation
        self._grown_parameters = job.capped(self._grown_max_tokens) if self._grown_max_tokens is not None else {}

    def check(self, outcome: Outcome) -> tuple[Status, ParsedAnswer | None]:
        """The status of an outcome and the values parsed from its text; None for free text, refusals and failures.

        An answer that the model finished, but that does not fit the contract, is invalid.
        """
        if self.contract is None or not isinstance(outcome, Answer) or outcome.status == "refused":
            return outcome.status, None
        parsed = self.contract.read(
            outcome.text, is_complete=outcome.status == "ok", is_mended=outcome.finish_reason == "stop"
        )
        return "invalid" if parsed.error is not None and outcome.status == "ok" else outcome.status, parsed

    def follow_up(
        self, request: Request, outcome: Outcome, checked: tuple[Status, ParsedAnswer | None] | None = None
    ) -> Request | None:
        """The follow-up of a request, or None if its outcome is final. `checked`: what `check` said of the outcome.

        The follow-up's key is computed from the request's key and, for a repair, from the answer's text. It does not
        depend on the request's body: without one, the follow-up has the right key and an empty body. Neither does it
        depend on the wording of the error, which is the validator's.
        """
        if not isinstance(outcome, Answer):
            return None
        status, parsed = checked or self.check(outcome)
        if (
            status == "invalid"
            and parsed is not None
            and parsed.error is not None
            and request.repair < self._repairs_max
        ):
            key = _key({"after": request.key, "answer": outcome.text, "ask": "repair"})
            body = _repair_body(request.body, outcome.text, parsed.error) if request.body else b""
            return replace(request, key=key, body=body, repair=request.repair + 1)
        more = self._grown_max_tokens
        can_grow = more is not None and not request.grown and (request.max_tokens or 0) < more
        if status == "truncated" and can_grow and (parsed is None or parsed.error is not None):
            key = _key({"after": request.key, "max_tokens": more})
            body = compact_json({**decode_body(request.body), **self._grown_parameters}) if request.body else b""
            return replace(request, key=key, body=body, max_tokens=more, grown=True)
        return None


def _key(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _repair_body(body: bytes, text: str, error: str) -> bytes:
    """The chat with the answer added, and a message that says what is wrong with it."""
    parts = decode_body(body)
    wrong = _without_middle(error, ERROR_CHARACTERS_MAX)
    again = f"That answer does not fit: {wrong}.\nAnswer again, with one JSON object that fits and nothing around it."
    added = [
        {"role": "assistant", "content": _without_middle(text, REPEATED_CHARACTERS_MAX)},
        {"role": "user", "content": again},
    ]
    return compact_json({**parts, "messages": [*decode_messages(parts["messages"]), *added]})


def _without_middle(text: str, characters: int) -> str:
    """The text, or the beginning and the end of a longer one: both help the model to see what it wrote."""
    return text if len(text) <= characters else f"{text[: characters // 2]}\n[…]\n{text[-characters // 2 :]}"
