"""Where a job's money went: each model's tokens at its prices, what was asked again, and attempts that failed."""

import math
from collections import defaultdict
from collections.abc import Iterator

from ..costs import PriceList
from ..planning import Step
from ..records import Answer, Record, Usage

ASKED_AGAIN = "Asked again, as the answer did not fit"


class SpendingLine(Record, frozen=True):
    """What some of the tokens, or of the money, went on."""

    what: str
    tokens: int | None
    per_million: float | None
    """US dollars; None where there is no price, or not a single one."""
    cost: float | None
    """US dollars; None if no price is known."""


class Spending:
    """The sums over all that was paid for a table's rows, whether it is shown or not."""

    def __init__(self, tariff: PriceList, model: str) -> None:
        """`model`: the job's own, where a request names none."""
        self._tariff, self._own = tariff, model
        self._used: defaultdict[str, Usage] = defaultdict(Usage)
        self._reasoning: defaultdict[str, int] = defaultdict(int)
        self._again, self._again_cost = Usage(), 0.0
        self.cost = 0.0
        """US dollars, of all whose cost is known."""

    def add(self, model: str, step: Step) -> None:
        """Count one request that was paid for, and the model it was asked of."""
        self.cost += step.outcome.cost or 0.0
        usage = step.outcome.usage if isinstance(step.outcome, Answer) else Usage()
        if step.request.repair or step.request.grown:
            self._again += usage
            self._again_cost += step.outcome.cost or 0.0
            return
        name = model or self._own
        # of each answer, as it is billed: no more tokens are cached than the prompt has, or reasoning than were output
        cached = min(usage.cached_tokens or 0, usage.prompt_tokens or 0)
        output = usage.billed_output_tokens or 0
        self._used[name] += Usage(usage.prompt_tokens or 0, output, cached_tokens=cached)
        self._reasoning[name] += min(usage.reasoning_tokens or 0, output)

    @property
    def unpriced(self) -> list[str]:
        """The models of which no price is known."""
        return [model for model in self._used or (self._own,) if not self._tariff.knows(model)]

    @property
    def is_priced(self) -> bool:
        """A price is known of some model."""
        return len(self.unpriced) < max(1, len(self._used))

    @property
    def lines(self) -> list[SpendingLine]:
        """Where it went; the tokens add up to `tokens`, the money to `cost` at the prices as they are now."""
        several = len(self._used) > 1
        lines = []
        for model in self._used or (self._own,):
            lines += [*self._of(model, f"{model}: " if several else "")]
        again = _tokens(self._again)
        if again:
            lines.append(SpendingLine(ASKED_AGAIN, again, None, self._again_cost if self.is_priced else None))
        if self.is_priced:
            rest = self.cost - math.fsum(line.cost or 0.0 for line in lines)
            lines += [SpendingLine("Attempts that failed", None, None, rest)] if rest > 1e-6 * self.cost else []
        return lines

    @property
    def tokens(self) -> int:
        """Of all answers, prompts included."""
        return _tokens(self._again) + sum(_tokens(usage) for usage in self._used.values())

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
            price = self._tariff.cost(thousand, model)
            name = prefix + what if prefix else what.capitalize()
            per_million, cost = (None, None) if price is None else (1_000 * price, tokens * price / 1_000)
            yield SpendingLine(name, tokens, per_million, cost)


def _tokens(usage: Usage) -> int:
    return (usage.prompt_tokens or 0) + (usage.billed_output_tokens or 0)
