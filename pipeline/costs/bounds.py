"""The most that one attempt at a request can use and cost, learned from what attempts used where nothing bounds it."""

import re
from collections import defaultdict
from typing import NamedTuple

from ..job import Job
from ..records import Request, Usage
from .prices import LONG_CACHE, PriceList, text_and_images

IMAGE_TOKENS_MAX = 50_000
"""The most prompt tokens that an image can use, independent of its size in bytes.

The most expensive known rule is gpt-4o-mini's: 2,833 tokens, and 5,667 for each of up to eight tiles, are 48,169. Most
others stay below 10,000.
"""

ASSUMED_OUTPUT_TOKENS = 4096
"""The longest answer, where nothing bounds it: only without a cap, for the note of what is in flight."""

MARGIN = 1.5
"""Where an attempt used more than its bound, later ones are taken to use this times as much more."""

UNBOUNDED_PART = re.compile(
    rb'"type":"(?:video_url|input_video|video|audio_url|file|input_file|file_url|document|document_url|media|resource)"'
)
"""Matches a part of a message whose size in bytes does not bound its tokens: a video, a document, or a reference.

Inside a text its quotes are escaped, and no JSON Schema has such a type. Images and `input_audio` are bounded.
"""

PART_TOKENS_MAX = 2_000_000
"""The prompt tokens of a request with such parts: no model reads more at once."""


class TokenBounds(NamedTuple):
    """The most prompt tokens and output tokens that an attempt can use."""

    prompt: int
    output: int


class Excess:
    """By how much attempts of one model exceeded their bounds so far: the largest difference and the largest ratio."""

    def __init__(self) -> None:
        self.difference, self.ratio = 0, 1.0

    def learn(self, used: int, bound: int) -> None:
        """Take note of an attempt that exceeded its bound."""
        self.difference = max(self.difference, used - bound)
        self.ratio = max(self.ratio, used / max(1, bound))

    def applied_to(self, bound: int) -> int:
        """The bound of another attempt, with all that was learned, and a margin if that is anything."""
        if not self.difference:
            return bound
        return round(MARGIN * max(bound + self.difference, bound * self.ratio))


class Bounds:
    """The most that an attempt can cost, for each model of a job."""

    def __init__(self, job: Job, prices: PriceList) -> None:
        self._prices = prices
        self.output_tokens_max = max([*job.output_caps.values(), job.limits.reserve_tokens or 0]) or None
        """The longest answer that the job's settings allow; None if nothing bounds it."""
        self._prompt: defaultdict[str, Excess] = defaultdict(Excess)
        self._output: defaultdict[str, Excess] = defaultdict(Excess)

    def tokens(self, request: Request) -> TokenBounds:
        """What the request itself bounds.

        A text never has more tokens than bytes, and an image has at most IMAGE_TOKENS_MAX by every known rule.
        """
        text_bytes, images = text_and_images(request.body)
        prompt = text_bytes + images * IMAGE_TOKENS_MAX
        if UNBOUNDED_PART.search(request.body):
            prompt = max(prompt, PART_TOKENS_MAX)
        return TokenBounds(prompt, request.max_tokens or self.output_tokens_max or ASSUMED_OUTPUT_TOKENS)

    def cost(self, request: Request) -> float | None:
        """The most that one attempt can cost in US dollars, by all that is known; None if the price is unknown."""
        prompt, output = self._learned_tokens(request)
        has_long_writes = any(mark in request.body for mark in LONG_CACHE)
        return self._prices.worst_cost(prompt, output, request.model, has_long_writes=has_long_writes)

    def learn(self, request: Request, usage: Usage) -> str:
        """Learn from what an attempt at this request, as it was sent, used.

        Returns a sentence for the screen if an attempt of this model exceeded a bound for the first time; else "".
        """
        bound, output = self.tokens(request), usage.billed_output_tokens
        told = ""
        for used, most, known, what in (
            (usage.prompt_tokens, bound.prompt, self._prompt, "prompt"),
            (output, bound.output, self._output, "output"),
        ):
            if used is None or used <= most:
                continue
            excess = known[request.model]
            if not excess.difference:
                told = (
                    f"The endpoint counted {used:,} {what} tokens where {most:,} was the most expected. "
                    f"From now on the cost cap reserves {MARGIN:g} times the largest number seen."
                )
            excess.learn(used, most)
        return told

    def _learned_tokens(self, request: Request) -> TokenBounds:
        bound = self.tokens(request)
        prompt, output = self._prompt[request.model], self._output[request.model]
        return TokenBounds(prompt.applied_to(bound.prompt), output.applied_to(bound.output))
