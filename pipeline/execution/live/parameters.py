"""Parameters that an endpoint does not take: another spelling is tried, and what changes the answer stops the job.

Settled by the first requests, as the form of a schema is: after an answer, a parameter is no longer to blame.
"""

from msgspec.structs import replace

from ...answers import decode_body
from ...job import OUTPUT_CAPS, Job
from ...records import Rejection, Request, Stopped
from ...text import compact_json

OTHER_SPELLING = dict(zip(OUTPUT_CAPS, reversed(OUTPUT_CAPS), strict=True))
"""The parameters that have the same meaning: OpenAI's newer models take one name, most other servers the other."""


class Parameters:
    """The parameters of a job as one lane sends them."""

    def __init__(self, job: Job, known: str = "") -> None:
        """`known`: the parameter that an earlier run sent under its other name, as `respelled` was then."""
        self._given = {*job.parameters, *(("logprobs", "top_logprobs") if job.answer.logprobs else ())}
        self._of_rows = OUTPUT_CAPS if job.columns.max_tokens is not None else ()
        self.respelled = known if known in OTHER_SPELLING else ""
        """The parameter that is sent under its other name; empty if there is none."""
        self._is_reported = True

    def encode(self, request: Request) -> Request:
        """The request with its parameters under the names that the endpoint takes."""
        if not self.respelled or f'"{self.respelled}":'.encode() not in request.body:
            return request
        body = decode_body(request.body)
        if self.respelled not in body:
            return request
        body[OTHER_SPELLING[self.respelled]] = body.pop(self.respelled)
        return replace(request, body=compact_json(body))

    def try_other_spelling(self, rejection: Rejection) -> bool:
        """Whether to send the request again, with the parameter that was refused under its other name.

        Raises Stopped if the endpoint refuses a parameter of the job that has no other name.
        """
        name = rejection.parameter
        if rejection.kind != "bad_request" or name not in {*self._given, *OUTPUT_CAPS}:
            return False
        other = OTHER_SPELLING.get(name, "")
        if other and not self.respelled and other in rejection.message:
            self.respelled, self._is_reported = name, False
            return True
        if name not in self._given or name in self._of_rows:
            return False
        raise Stopped(
            f"the endpoint does not take the parameter {name} as it is. The endpoint replied: HTTP {rejection.status}: "
            f"{rejection.message}\n{_remedy(name)}\nIt is not left out automatically, because the answers would change."
        )

    def report(self) -> str:
        """A line for the screen, once, if a parameter is sent under another name; empty otherwise."""
        if self._is_reported:
            return ""
        self._is_reported = True
        return f"the endpoint takes {OTHER_SPELLING[self.respelled]} in place of {self.respelled}: it is sent so"


def _remedy(name: str) -> str:
    """What to change in the job file."""
    if name in ("logprobs", "top_logprobs"):
        return "Set answer.logprobs = false in the job file."
    return f"Change or remove `{name} = …` under [parameters] in the job file, or --set parameters.{name}=…"
