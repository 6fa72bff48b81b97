"""How many tokens a lane expects of its first requests, before their answers tell."""

from ...costs import expected_usage
from ...pacing import TokenEstimate
from ...records import Tally


def first_estimate(ledger: Tally) -> TokenEstimate:
    """An estimate of tokens by size: the average of all answers in the ledger."""
    millions = 1_000_000
    usage = expected_usage(ledger, millions, millions)
    return TokenEstimate((usage.prompt_tokens or 0) / millions, (usage.completion_tokens or 0) / millions)
