"""What a job's tokens and money were spent on: each model's prompts and answers, follow-ups and failed attempts."""

import math
from collections import defaultdict
from collections.abc import Iterator

from ..costs import PriceList
from ..planning import Step
from ..records import Answer, Record, Usage

FOLLOW_UPS = "Follow-ups of invalid or truncated answers"


PARTS = (
    "prompt",
    "prompt, cached by the endpoint",
    "prompt, written to its cache",
    "answers",
    "reasoning, not shown",
)
"""The kinds of tokens that a model's cost has a line for."""


class SpendingLine(Record, frozen=True):
    """One line of the table: what tokens or money were spent on."""

    what: str
    tokens: int | None
    per_million: float | None
    """Mean price in US dollars per million tokens; None if it is unknown, or for tokens of several kinds."""
    cost: float | None
    """US dollars; None if the price is unknown."""


class Spending:
    """Sums over every request that was paid for a table's rows, also those whose answer is not shown."""

    def __init__(self, prices: PriceList, model: str) -> None:
        """`model`: the job's model, which is meant where a request names none."""
        self._prices, self._default = prices, model
        self._used: defaultdict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(PARTS, 0))
        """The tokens of each model by kind."""
        self._costs: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(PARTS, 0.0))
        """What they cost, in US dollars."""
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
        prompt, output = usage.prompt_tokens or 0, usage.billed_output_tokens or 0
        cached = min(usage.cached_tokens or 0, prompt)
        written = min(usage.cache_write_tokens or 0, prompt - cached)
        reasoning = min(usage.reasoning_tokens or 0, output)
        parts = self._prices.parts(usage, name)
        of_reasoning = parts.output * reasoning / max(1, output)
        tokens = (prompt - cached - written, cached, written, output - reasoning, reasoning)
        costs = (*parts[:3], parts.output - of_reasoning, of_reasoning)
        for kind, count, cost in zip(PARTS, tokens, costs, strict=True):
            self._used[name][kind] += count
            self._costs[name][kind] += cost

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
        return _tokens(self._follow_ups) + sum(sum(used.values()) for used in self._used.values())

    def _of(self, model: str, prefix: str) -> Iterator[SpendingLine]:
        is_known = self._prices.knows(model)
        for what, tokens in self._used[model].items():
            if not tokens and what not in ("prompt", "answers"):
                continue
            cost = self._costs[model][what]
            name = prefix + what if prefix else what.capitalize()
            per_million = 1e6 * cost / tokens if tokens else self._price_of(model, what)
            yield SpendingLine(name, tokens, per_million if is_known else None, cost if is_known else None)

    def _price_of(self, model: str, what: str) -> float:
        """US dollars per million tokens of a kind that no request has used."""
        parts = self._prices.parts(Usage(1, 1), model)
        return 1e6 * (parts.fresh_prompt if what == "prompt" else parts.output)


def _tokens(usage: Usage) -> int:
    return (usage.prompt_tokens or 0) + (usage.billed_output_tokens or 0)
