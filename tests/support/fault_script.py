"""A seeded script of faults: what each row meets on each attempt, and the history of what was really sent.

A row first meets up to three faults that pass, then what it always gets: an answer, or a refusal for good. So whatever
happens to the client, what must become of each row is known beforehand (`Script.due`).
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from chat_server import USAGE, Canned, Seen, answer_to, completion, problem

SOON = {"retry-after": "0.05"}


def _error_in_a_200(status: int) -> Canned:
    return Canned(body=b'{"error": {"message": "upstream failed", "code": %d}}' % status)


PASSING: dict[str, Callable[[], Canned]] = {
    "429": lambda: Canned(429, problem("Rate limit reached."), SOON),
    "429 with a date": lambda: Canned(
        429, problem("Rate limit reached."), {"retry-after": "Wed, 01 Jan 2020 00:00:00 GMT"}
    ),
    "500": lambda: Canned(500, problem("It broke."), SOON),
    "502": lambda: Canned(502, b"<html>Bad gateway</html>", SOON),
    "503": lambda: Canned(503, problem("Overloaded."), SOON),
    "529": lambda: Canned(529, problem("Overloaded."), SOON),
    "408": lambda: Canned(408, problem("Too slow."), SOON),
    "409": lambda: Canned(409, problem("Locked."), SOON),
    "closed without a byte": lambda: Canned(close=True),
    "cut in its body": lambda: Canned(body=completion("half an ans"), cut_after=40),
    "no HTTP": lambda: Canned(garbage=True),
    "silent for ever": lambda: Canned(hang=True),
    "dripping for ever": lambda: Canned(drip_seconds=0.05),
    "an error in a 200": lambda: _error_in_a_200(502),
    "an empty body": lambda: Canned(body=b""),
    "white space": lambda: Canned(body=b" \n\t"),
    "half a JSON": lambda: Canned(body=completion("whole")[:-9]),
    "a web page": lambda: Canned(body=b"<!doctype html><title>Log in</title>", headers={"content-type": "text/html"}),
    "no choices": lambda: Canned(body=b'{"object": "chat.completion", "choices": []}'),
    "choices null": lambda: Canned(body=b'{"object": "chat.completion", "choices": null}'),
    "no content": lambda: Canned(body=completion(None)),
    "finish reason error": lambda: Canned(body=completion("part", finish_reason="error")),
    "the connection ends after the answer to another": lambda: Canned(
        503, problem("Draining."), {**SOON, "connection": "close"}
    ),
}
"""Faults after which a row may be asked again."""

BILLED = frozenset({"no content", "finish reason error"})
"""Of these, such as report what they used."""


class Due(NamedTuple):
    """What must become of a row."""

    status: str
    answer: str | None


LASTING: dict[str, tuple[Callable[[str], Canned], Callable[[str], Due]]] = {
    "answer": (lambda prompt: Canned(body=completion(answer_to(prompt))), lambda prompt: Due("ok", answer_to(prompt))),
    "answer, then the connection ends": (
        lambda prompt: Canned(body=completion(answer_to(prompt)), headers={"connection": "close"}),
        lambda prompt: Due("ok", answer_to(prompt)),
    ),
    "truncated": (
        lambda prompt: Canned(body=completion(f"half {answer_to(prompt)}", finish_reason="length")),
        lambda prompt: Due("truncated", f"half {answer_to(prompt)}"),
    ),
    "filtered answer": (
        lambda prompt: Canned(body=completion(f"tame {answer_to(prompt)}", finish_reason="content_filter")),
        lambda prompt: Due("filtered", f"tame {answer_to(prompt)}"),
    ),
    "refused": (
        lambda prompt: Canned(body=completion(f"no {answer_to(prompt)}", refusal="I will not.")),
        lambda prompt: Due("refused", f"no {answer_to(prompt)}"),
    ),
    "too long": (
        lambda _: Canned(400, problem("maximum context length is 4 tokens", code="context_length_exceeded")),
        lambda _: Due("failed", None),
    ),
    "filtered prompt": (
        lambda _: Canned(400, problem("The prompt was turned away.", code="content_filter")),
        lambda _: Due("filtered", None),
    ),
    "bad request": (lambda _: Canned(400, problem("I do not like it.")), lambda _: Due("failed", None)),
}
ANSWERS = ("answer", "answer, then the connection ends", "truncated", "filtered answer", "refused")


@dataclass(frozen=True)
class Sent:
    """One request as it arrived, and what it met."""

    prompt: str
    attempt: int
    """How often this prompt had arrived then, over all runs."""
    met: str
    """A name of PASSING or LASTING."""

    @property
    def tokens(self) -> tuple[int, int]:
        """Prompt and completion tokens that the endpoint reported, and so bills."""
        billed = self.met in ANSWERS or self.met in BILLED
        return (USAGE["prompt_tokens"], USAGE["completion_tokens"]) if billed else (0, 0)


@dataclass
class Script:
    """Given as `reply` to a ChatServer: decides by seed, prompt and attempt, and keeps the history."""

    seed: int
    share: float = 0.3
    """Of the rows, such as meet a fault that passes; they meet one to three."""
    odd: float = 0.1
    """Of the rows, such as end otherwise than with a plain answer."""
    delay_seconds: float = 0.0
    limits: bool = True
    """Whether requests are refused as too many: that teaches a pace, which then holds for minutes."""
    history: list[Sent] = field(default_factory=list)

    def __call__(self, seen: Seen, attempt: int) -> Canned:
        """Decide and note; called in the server's thread alone."""
        course = self.course(seen.prompt)
        met = course[min(attempt, len(course)) - 1]
        self.history.append(Sent(seen.prompt, attempt, met))
        canned = PASSING[met]() if met in PASSING else LASTING[met][0](seen.prompt)
        return replace(canned, delay_seconds=self.delay_seconds)

    def due(self, prompt: str) -> Due:
        """What must become of this prompt in the end."""
        return LASTING[self.course(prompt)[-1]][1](prompt)

    def course(self, prompt: str) -> list[str]:
        """What this prompt meets, one attempt after the other; the last again and again."""
        rng = random.Random(f"{self.seed} {prompt}")
        passing = [name for name in PASSING if self.limits or not name.startswith("429")]
        faults = rng.choices(passing, k=rng.randint(1, 3)) if rng.random() < self.share else []
        return [*faults, rng.choice(list(LASTING)) if rng.random() < self.odd else "answer"]
