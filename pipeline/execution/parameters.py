"""Parameters that an endpoint does not take: another spelling is tried, and what changes the answer stops the job.

Settled by the first requests, as the form of a schema is: after an answer, a parameter is no longer to blame.
What only asks for token counts is left out where it is not taken (older vLLM, Mistral, gateways before Bedrock).
"""

import re

from msgspec.structs import replace

from ..answers import decode_body
from ..job import OUTPUT_CAPS, Job
from ..records import Rejection, Request, Stopped
from ..text import compact_json

OTHER_SPELLING = dict(zip(OUTPUT_CAPS, reversed(OUTPUT_CAPS), strict=True))
"""The parameters that have the same meaning: OpenAI's newer models take one name, most other servers the other."""

STREAM_OPTIONS = "stream_options"
"""What asks for token counts at the end of a stream."""

STREAM_OPTIONS_WORDS = re.compile(
    r"(?:stream_options|include_usage)\W{0,6}[^{}]{0,60}"
    r"(?:\bnot\b|unknown|unrecogni|unsupported|unexpected|extra|invalid|forbidden|only)"
    r"|(?:\bnot\b|unknown|unrecogni\w{1,8}|unsupported|unexpected|extra|invalid|forbidden)[^{}]{0,60}"
    r"(?:stream_options|include_usage)",
    re.IGNORECASE,
)


class Parameters:
    """The parameters of a job as they are sent to one model."""

    def __init__(self, job: Job, known: str = "") -> None:
        """`known`: the parameters that an earlier run sent otherwise, as `respelled` was then."""
        self._given = {*job.parameters, *(("logprobs", "top_logprobs") if job.answer.logprobs else ())}
        self._of_rows = OUTPUT_CAPS if job.columns.max_tokens is not None else ()
        self._renamed = next((name for name in known.split() if name in OTHER_SPELLING), "")
        """The parameter that is sent under its other name; empty if there is none."""
        self._leaves_out_counts = STREAM_OPTIONS in known.split()
        """Token counts are not asked for."""
        self._is_streamed, self._is_capped = job.endpoint.stream, job.limits.max_cost is not None
        self._report = ""
        """What is not reported yet."""

    @property
    def respelled(self) -> str:
        """The parameters that are sent under another name or not at all, separated by spaces."""
        return " ".join(filter(None, (self._renamed, STREAM_OPTIONS if self._leaves_out_counts else "")))

    def encode(self, request: Request) -> Request:
        """The request with its parameters under the names that the endpoint takes."""
        if not any(f'"{name}":'.encode() in request.body for name in self.respelled.split()):
            return request
        body = decode_body(request.body)
        if not body.keys() & set(self.respelled.split()):
            return request
        if self._renamed in body:
            body[OTHER_SPELLING[self._renamed]] = body.pop(self._renamed)
        if self._leaves_out_counts:
            body.pop(STREAM_OPTIONS, None)
        return replace(request, body=compact_json(body))

    def try_other_spelling(self, rejection: Rejection) -> bool:
        """Whether to send the request again, with the parameter that was rejected under its other name or left out.

        Raises Stopped if the endpoint rejects a parameter of the job that has no other name.
        """
        name = rejection.parameter
        if rejection.kind != "bad_request":
            return False
        if self._is_streamed and not self._leaves_out_counts and STREAM_OPTIONS_WORDS.search(rejection.message):
            self._leaves_out_counts = True
            counts = "each answer without them counts at the most that it can cost" if self._is_capped else ""
            self._report = (
                "the endpoint does not take stream_options: they are left out, and token counts may be missing"
            )
            self._report += f";\n{counts}" if counts else ""
            return True
        if name not in {*self._given, *OUTPUT_CAPS}:
            return False
        other = OTHER_SPELLING.get(name, "")
        if other and not self._renamed and other in rejection.message:
            self._renamed = name
            self._report = f"the endpoint takes {other} in place of {name}: it is sent so"
            return True
        if name not in self._given or name in self._of_rows:
            return False
        raise Stopped(
            f"the endpoint does not take the parameter {name} as it is. The endpoint replied: HTTP {rejection.status}: "
            f"{rejection.message}\n{_remedy(name)}\nIt is not left out automatically, because the answers would change."
        )

    def report(self) -> str:
        """A line for the screen, once, if a parameter is sent under another name or not at all; empty otherwise."""
        report, self._report = self._report, ""
        return report


def _remedy(name: str) -> str:
    """What to change in the job file."""
    if name in ("logprobs", "top_logprobs"):
        return "Set answer.logprobs = false in the job file."
    return f"Change or remove `{name} = …` under [parameters] in the job file, or --set parameters.{name}=…"
