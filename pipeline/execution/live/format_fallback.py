"""Find out which response format an endpoint accepts: try the most binding one first, then the next."""

from msgspec.structs import replace

from ...answers import RESPONSE_FORMATS, ContractEncoder, contract_of
from ...endpoint import rejects_response_format
from ...job import Job
from ...records import Answer, Rejection, Request

SERVER_ERRORS_MIN = 2
"""How many failures of the server in one format, before the first answer, may mean that it does not know the format."""


class FormatFallback:
    """The response format in use for a job's contract. A job without a contract has only one."""

    def __init__(self, job: Job, known: str = "") -> None:
        """`known`: the format that an earlier run ended with, as `in_use` named it; empty if there was none."""
        self._contract = contract_of(job)
        self._encoder = ContractEncoder(job.answer.contract)
        self._formats = RESPONSE_FORMATS if job.answer.contract is not None else RESPONSE_FORMATS[:1]
        names: list[str] = list(self._formats)
        self._index, self._server_errors = names.index(known) if known in names else 0, 0
        self._rejection = ""
        """The endpoint's words about the first format, while another is tried."""
        self._is_ignored = False
        """The format was accepted and had no effect, which is not reported yet."""
        self._has_effect = False
        """An answer had the form of the contract."""

    @property
    def in_use(self) -> str:
        """The format in use, if it is not the first one; else empty."""
        return self._formats[self._index] if self._index else ""

    def encode(self, request: Request) -> Request:
        """The request with its contract, in the format in use; the same object if the job has no contract."""
        body = self._encoder.encode(request.body, self._formats[self._index])
        return request if body is request.body else replace(request, body=body)

    def try_next(self, rejection: Rejection) -> bool:
        """Go on to the next format if a rejection may be about the one in use; False if it is not.

        Also False after the last format, when it cannot have been the format: the first one is then in use again.
        Some servers only fail at a format that they do not know; the second such failure may mean that.
        """
        if rejection.kind == "server":
            self._server_errors += 1
            if self._server_errors < SERVER_ERRORS_MIN:
                return False
        elif not rejects_response_format(rejection):
            return False
        self._rejection = self._rejection or f"HTTP {rejection.status}: {rejection.message}"
        self._index = (self._index + 1) % len(self._formats)
        self._server_errors = 0
        if not self._index:
            self._rejection = ""
        return self._index > 0

    def look_at(self, answer: Answer) -> None:
        """Take note of an answer. If the first ones do not even name a property, the endpoint ignores the format.

        The contract is stated in words from then on: a model that was never told of it cannot fit it.
        """
        if self._has_effect or self._contract is None or self._index == len(self._formats) - 1:
            return
        if any(f'"{name}"' in answer.text for name in self._contract.shapes):
            self._has_effect = True
        elif (
            answer.status == "ok"
            and not answer.taken_from
            and answer.finish_reason != "tool_calls"
            and self._contract.read(answer.text, is_complete=True).error is not None
        ):
            self._index, self._is_ignored = len(self._formats) - 1, True

    def report(self) -> str:
        """A line for the screen, once, if the format in use is not the first one; empty otherwise."""
        if self._is_ignored:
            self._is_ignored, self._rejection = False, ""
            return "the endpoint takes response_format and ignores it: the schema is stated in the prompt from now on"
        if not self._rejection:
            return ""
        rejected = " or ".join(self._formats[: self._index])
        instead = "json_object and the schema in the prompt are" if self._index == 1 else "the schema in the prompt is"
        line = f"the endpoint does not accept {rejected} ({self._rejection}): {instead} used instead"
        self._rejection = ""
        return line
