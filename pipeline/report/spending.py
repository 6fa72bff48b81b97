"""What a job's tokens and money were spent on: each model's prompts and answers, follow-ups and failed attempts."""

import math
from collections import defaultdict
from collections.abc import Iterator

from ..costs import PriceList
from ..planning import Step
from ..records import Answer, Record, Usage

FOLLOW_UPS = "Follow-ups of invalid or truncated answers"


class SpendingLine(Record, frozen=True):
    """One line of the table: what tokens or money were spent on."""

    what: str
    tokens: int | None
    per_million: float | None
    """Price in US dollars per million tokens; None if it is unknown, or if there is more than one."""
    cost: float | None
    """US dollars; None if the price is unknown."""


class Spending:
    """Sums over every request that was paid for a table's rows, also those whose answer is not shown."""

    def __init__(self, prices: PriceList, model: str) -> None:
        """`model`: the job's model, which is meant where a request names none."""
        self._prices, self._default = prices, model
        self._used: defaultdict[str, Usage] = defaultdict(Usage)
        self._reasoning: defaultdict[str, int] = defaultdict(int)
        self._follow_ups, self._follow_up_cost = Usage(), 0.0
        self.cost = 0.0
        """US dollars of all requests whose cost is known."""

    def add(self, model: str, step: Step) -> None:
        """Add one request that was paid: the model it was sent to (empty for the job's model), and its outcome."""
        self.cost += step.outcome.cost or 0.0
        usage = step.outcome.usage if isinstance(step.outcome, Answer) else Usage()
        if step.request.repair or step.request.grown:
            self._follow_ups += usage
            self._follow_up_cost += step.outcome.cost or 0.0
            return
        name = model or self._default
        # endpoints may report more cached tokens than the prompt has, or more reasoning than output: they bill no more
        cached = min(usage.cached_tokens or 0, usage.prompt_tokens or 0)
        output = usage.billed_output_tokens or 0
        self._used[name] += Usage(usage.prompt_tokens or 0, output, cached_tokens=cached)
        self._reasoning[name] += min(usage.reasoning_tokens or 0, output)

    @property
    def unpriced(self) -> list[str]:
        """The models whose price is unknown."""
        return [model for model in self._used or (self._default,) if not self._prices.knows(model)]

    @property
    def is_priced(self) -> bool:
        """Whether the price of at least one model is known."""
        return len(self.unpriced) < max(1, len(self._used))

    @property
    def lines(self) -> list[SpendingLine]:
        """The lines of the table. Tokens add up to `tokens`; money adds up to `cost` if prices have not changed."""
        several = len(self._used) > 1
        lines = []
        for model in self._used or (self._default,):
            lines += [*self._of(model, f"{model}: " if several else "")]
        if tokens := _tokens(self._follow_ups):
            lines.append(SpendingLine(FOLLOW_UPS, tokens, None, self._follow_up_cost if self.is_priced else None))
        if self.is_priced:
            rest = self.cost - math.fsum(line.cost or 0.0 for line in lines)
            lines += [SpendingLine("Attempts that failed", None, None, rest)] if rest > 1e-6 * self.cost else []
        return lines

    @property
    def tokens(self) -> int:
        """Prompt and output tokens of all answers."""
        return _tokens(self._follow_ups) + sum(_tokens(usage) for usage in self._used.values())

    def _of(self, model: str, prefix: str) -> Iterator[SpendingLine]:
        usage, reasoning = self._used[model], self._reasoning[model]
        prompt, cached, output = usage.prompt_tokens or 0, usage.cached_tokens or 0, usage.completion_tokens or 0
        parts = {
            "prompt": (prompt - cached, Usage(1_000, 0)),
            "prompt, cached by the endpoint": (cached, Usage(1_000, 0, cached_tokens=1_000)),
            "answers": (output - reasoning, Usage(0, 1_000)),
            "reasoning, not shown": (reasoning, Usage(0, 1_000)),
        }
        for what, (tokens, thousand) in parts.items():
            if not tokens and what not in ("prompt", "answers"):
                continue
            price = self._prices.cost(thousand, model)
            name = prefix + what if prefix else what.capitalize()
            per_million, cost = (None, None) if price is None else (1_000 * price, tokens * price / 1_000)
            yield SpendingLine(name, tokens, per_million, cost)


def _tokens(usage: Usage) -> int:
    return (usage.prompt_tokens or 0) + (usage.billed_output_tokens or 0)
