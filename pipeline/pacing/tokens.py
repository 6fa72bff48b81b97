"""The tokens that a request will use, estimated from its size in bytes, without a tokenizer."""

from collections import deque

from ..records import Usage
from .tuning import DEFAULT_TUNING, Tuning


class TokenEstimate:
    """An estimate of the tokens of a request that calibrates itself by the usage that the endpoint reports.

    Prompt tokens are a least-squares line over the bytes of the bodies: it errs by one or two percent where characters
    divided by 4 err by up to 59 %. Of completion tokens it knows the mean and a high quantile.
    """

    def __init__(
        self, tokens_per_byte: float = 0.25, completion_tokens: float = 100.0, tuning: Tuning = DEFAULT_TUNING
    ) -> None:
        """`tokens_per_byte` and `completion_tokens` are the estimate until the first answer."""
        self._tuning = tuning
        self._tokens_per_byte = tokens_per_byte
        self._completion_mean = self._completion_high = completion_tokens
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        """The weighted sums of the least-squares line: x is the size in bytes, y the number of prompt tokens."""
        self._recent_completions: deque[int] = deque(maxlen=tuning.completions_recent)
        self._answers = 0

    def tokens(self, size_bytes: int) -> tuple[float, float]:
        """The tokens of a request of this size: the probable number, and one that is hardly exceeded."""
        prompt = self._prompt(size_bytes)
        return prompt + self._completion_mean, prompt + max(self._completion_mean, self._completion_high)

    def learn(self, size_bytes: int, usage: Usage) -> None:
        """Learn from the usage of a request of this size; counts that were not reported are ignored."""
        tuning = self._tuning
        if usage.prompt_tokens is not None:
            x, y, forget = size_bytes, usage.prompt_tokens, tuning.forget
            self._n = forget * self._n + 1
            self._x = forget * self._x + x
            self._y = forget * self._y + y
            self._xx = forget * self._xx + x * x
            self._xy = forget * self._xy + x * y
        output = usage.billed_output_tokens
        if output is not None:
            self._answers += 1
            self._completion_mean += (output - self._completion_mean) / min(self._answers, tuning.completions_mean)
            recent = self._recent_completions
            recent.append(output)
            if self._answers < 20 or self._answers % 20 == 0:  # sorting each time would cost more than it tells
                self._completion_high = sorted(recent)[int(tuning.completion_quantile * len(recent))]

    def _prompt(self, size_bytes: int) -> float:
        if not self._n:
            return size_bytes * self._tokens_per_byte
        x, y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - x * x
        if variance < (self._tuning.spread_min * x) ** 2:
            return y * size_bytes / max(1.0, x)
        slope = max(0.0, (self._xy / self._n - x * y) / variance)
        return max(1.0, y + slope * (size_bytes - x))
