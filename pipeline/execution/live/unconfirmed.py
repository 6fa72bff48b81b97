"""Failures that may be the job's own fault: they wait for an answer, which shows that the job itself is good."""

from ...pacing import ADDRESS_REMEDY, REFUSALS
from ...records import Failure, Stopped
from .open_request import OpenRequest
from .source import RequestSource

REFUSED_LAST_MIN = 2
"""How many rows at the end of a run, refused for their key, mean that the key was revoked."""


class Unconfirmed:
    """The failures of one lane's rows since its last answer."""

    def __init__(self, source: RequestSource, model: str, named_by: str | None) -> None:
        """`named_by`: the column by which rows name their models; None if they do not."""
        self._source, self._model, self.named_by = source, model, named_by
        self._failures: list[tuple[OpenRequest, Failure]] = []

    def __len__(self) -> int:
        return len(self._failures)

    def add(self, item: OpenRequest, failure: Failure) -> None:
        """Add the failure of a row."""
        self._failures.append((item, failure))

    def take(self) -> list[tuple[OpenRequest, Failure]]:
        """Return all failures, which are confirmed from now on."""
        failures, self._failures = self._failures, []
        return failures

    def check_key(self) -> None:
        """Raise Stopped if no answer will come any more, and the last rows were all refused for their key.

        One alone may have been refused for its own sake.
        """
        refused = [failure for _, failure in self._failures if failure.kind == "auth"]
        if len(refused) >= REFUSED_LAST_MIN:
            raise Stopped(REFUSALS["auth"].format(f"The endpoint replied: {refused[-1].reason}"))

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
