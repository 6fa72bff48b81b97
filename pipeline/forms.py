"""How a contract is conveyed with a request: as a schema that the endpoint enforces, or in words beside the prompt."""

from typing import Literal, get_args

import msgspec

from .job import Job

Form = Literal["json_schema", "json_object", "instruction"]
FORMS: tuple[Form, ...] = get_args(Form)


class Forms:
    """The forms in which a job's contract can be conveyed."""

    def __init__(self, job: Job) -> None:
        self._contract = job.answer.contract

    def conveyed(self, body: bytes, form: Form) -> bytes:
        """The body as it is sent; the same bytes for free text."""
        if self._contract is None or form == "instruction":
            return body
        held = {"name": "answer", "strict": True, "schema": self._contract}
        laid = {"type": form, "json_schema": held} if form == "json_schema" else {"type": form}
        return msgspec.json.encode({**msgspec.json.decode(body), "response_format": laid})
