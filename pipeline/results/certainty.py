"""The answer that a row shows, by majority vote among its samples, and how certain it is: agreement and confidence."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from ..answers import Shape
from ..planning import STATUS_RANK, Chain, Step
from ..records import Answer


class Vote(NamedTuple):
    """The result of a majority vote among a row's samples."""

    step: Step | None
    """The step that the row shows; None while a sample is pending."""
    agreement: float | None = None
    """Share of the valid answers, 0 to 1, that hold the same values as the shown one; None if nothing is compared."""


PENDING = Vote(None)


def majority_vote(samples: Sequence[Chain], properties: Sequence[str]) -> Vote:
    """Choose the answer that a row shows: the most frequent one among the samples with the best status.

    Two answers are the same if they hold the same values in `properties`, or the same text if there are none. Of
    equally frequent ones, the earliest is chosen.
    """
    results = [step for chain in samples if (step := chain.result) is not None]
    if len(results) < len(samples):
        return PENDING
    if len(results) == 1:
        return Vote(results[0], 1.0 if properties and results[0].status == "ok" else None)
    best = min(STATUS_RANK[step.status] for step in results)
    candidates = [step for step in results if STATUS_RANK[step.status] == best]
    values = [_compared_value(step, properties) for step in candidates]
    votes = Counter(values)
    at = max(range(len(candidates)), key=lambda number: (votes[values[number]], -number))
    agreement = votes[values[at]] / len(values) if properties and candidates[at].status == "ok" else None
    return Vote(candidates[at], agreement)


def compared_properties(shapes: dict[str, Shape], label_property: str | None) -> list[str]:
    """The properties by which two answers are compared.

    That is the label if there is one, else every property that is an enum, an integer or a boolean, or a list of these.
    """
    if label_property is not None:
        return [label_property]
    return [name for name, shape in shapes.items() if (shape.items or shape).kind in ("word", "integer", "boolean")]


def _compared_value(step: Step, properties: Sequence[str]) -> str:
    """The values of an answer in these properties as JSON, lists sorted; its whole text if there are none."""
    if step.parsed is None or step.parsed.error is not None or not properties:
        return step.outcome.text if isinstance(step.outcome, Answer) else ""
    values = [step.parsed.values.get(name) for name in properties]
    return json.dumps([sorted(value, key=json.dumps) if isinstance(value, list) else value for value in values])


def confidence(answer: Answer, label: str | None) -> float | None:
    """The probability, 0 to 1, that the model gave its label; without a label, the geometric mean over all tokens.

    It is computed from the answer's log probabilities: the product over the tokens that spell the label. None if the
    answer has none, or if they do not spell the label.
    """
    logprobs = [logprob for _, logprob in answer.logprobs]
    if not logprobs:
        return None
    if label is None:
        return math.exp(sum(logprobs) / len(logprobs))
    # the last occurrence, if possible in quotes: a property's name or a thought may hold the same word before it
    quoted, text = json.dumps(label, ensure_ascii=False), "".join(token for token, _ in answer.logprobs)
    start = text.rfind(quoted) + 1 or text.rfind(quoted[1:-1])
    if start < 0:
        return None
    end, ends = start + len(quoted) - 2, accumulate(len(token) for token, _ in answer.logprobs)
    spans = (
        (after - len(token), after, logprob) for (token, logprob), after in zip(answer.logprobs, ends, strict=True)
    )
    return math.exp(sum(logprob for before, after, logprob in spans if before < end and after > start))
