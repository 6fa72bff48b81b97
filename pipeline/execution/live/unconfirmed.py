"""Failures that may be the job's own fault: they wait for an answer, which shows that the job itself is good.

A row that was rejected for its key, model or address is to blame itself only if these were good afterwards: if what was
sent after the row's first such rejection was answered.
"""

import math

from ...pacing import ADDRESS_REMEDY, REJECTED_ROWS_MAX
from ...records import Failure, Stopped
from .open_request import OpenRequest
from .source import RequestSource


class Unconfirmed:
    """The failures of one lane's rows since its last answer."""

    def __init__(self, source: RequestSource, model: str, named_by: str | None) -> None:
        """`named_by`: the column by which rows name their models; None if they do not."""
        self._source, self._model, self.named_by = source, model, named_by
        self._failures: list[tuple[OpenRequest, Failure]] = []
        self._good_at = -math.inf
        """When the last request was sent that was answered: key, model and address were good then."""

    def __len__(self) -> int:
        return len(self._failures)

    def add(self, item: OpenRequest, failure: Failure) -> None:
        """Add the failure of a row."""
        self._failures.append((item, failure))

    def is_key_in_doubt(self, item: OpenRequest, failure: Failure) -> bool:
        """Whether the key, the model or the address may be to blame: none was proven good since the rejection."""
        at = item.rejected_at
        return failure.kind in REJECTED_ROWS_MAX and at is not None and at >= self._good_at

    @property
    def has_key_in_doubt(self) -> bool:
        """Whether any row may have failed for them."""
        return any(self.is_key_in_doubt(*each) for each in self._failures)

    def take(self, good_at: float = -math.inf) -> list[tuple[OpenRequest, Failure]]:
        """Return the failures that are confirmed, from now on. `good_at`: when a request was sent that was answered."""
        self._good_at = max(self._good_at, good_at)
        failures, self._failures = self._failures, []
        for each in failures:
            if self.is_key_in_doubt(*each):
                self._failures.append(each)
        return [each for each in failures if not self.is_key_in_doubt(*each)]

    def is_model_in_doubt(self) -> bool:
        """Whether it is unknown which is wrong: the models that rows name, or the job's address.

        Another model's answer shows that it is the rows. Raises Stopped if none can come any more.
        """
        if self.named_by is None or not self._failures or self._source.has_answers:
            return False
        if not self._source.in_flight and self._source.is_over(self._model):
            _, failure = self._failures[0]
            raise Stopped(f"No model has answered. For {failure.reason}\n{ADDRESS_REMEDY}")
        return True
