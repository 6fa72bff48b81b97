"""Answers to an earlier contract of the job that fit the present one: `answer.keep_old`."""

from collections.abc import Iterator, Sequence
from typing import Any

from . import history
from .desk import read_outcome
from .job import Job
from .prompts import Prompts
from .records import Failure, Request
from .schema import Ladder
from .store import Reader
from .templates import Row


class OldAnswers:
    """The answers that were given in a job folder when its contract, and nothing else, was another."""

    def __init__(self, job: Job, prompts: Prompts, reader: Reader) -> None:
        self._ladder, self._reader = Ladder(job), reader
        wanted = job.answer.keep_old and "ok" not in job.this_run.retry
        contracts = earlier_contracts(job) if wanted else ()
        self._earlier = [prompts.under(contract) for contract in contracts]
        self.taken = 0
        """Requests whose answer is an old one."""

    def keys(self, rows: Sequence[Row], keys: Sequence[str | None]) -> list[str | None]:
        """Where each request's answer lies: under its own key, or if there is none under an earlier one that fits.

        `keys`: of each row so many as it has opinions, None where no request can be made.
        """
        kept = list(keys)
        each = len(kept) // len(rows) if rows else 1
        for prompts in self._earlier:
            found = self._reader.get_many([key for key in kept if key is not None])
            answered = {key for key, stored in zip(filter(None, kept), found, strict=True) if stored is not None}
            missing = [place for place, key in enumerate(kept) if key is not None and key not in answered]
            made = {number: prompts.requests(rows[number]) for number in {place // each for place in missing}}
            old = {
                place: requests[place % each].key
                for place in missing
                if isinstance(requests := made[place // each], list)
            }
            for place, fits in zip(old, self._fit(list(old.values())), strict=True):
                if fits:
                    kept[place] = old[place]
                    self.taken += 1
        return kept

    def _fit(self, keys: list[str]) -> list[bool]:
        """Of each key, whether what came of it fits the present contract: as it is, or after it was asked again."""
        found = zip(keys, self._reader.get_many(keys), strict=True)
        return [self._fits(Request(key, b""), stored) for key, stored in found]

    def _fits(self, request: Request, stored: bytes | None) -> bool:
        while stored is not None:
            outcome = read_outcome(stored)
            if isinstance(outcome, Failure) or self._ladder.judge(outcome)[0] == "ok":
                return not isinstance(outcome, Failure)
            following = self._ladder.follow_up(request, outcome)
            if following is None:
                return False
            request, stored = following, self._reader.get_many([following.key])[0]
        return False


def earlier_contracts(job: Job) -> Iterator[dict[str, Any]]:
    """The contracts of earlier runs that were as this one in all else that the model sees, the last one first."""
    now = job.seen_by_model()
    told = [now["answer"]]
    for run in reversed(history.read(job.folder)):
        before = run.seen_by_model if isinstance(run, history.Began) else {}
        changed = {name for name in now if now[name] != before.get(name)}
        contract = before.get("answer")
        if changed == {"answer"} and isinstance(contract, dict) and contract not in told:
            told.append(contract)
            yield contract
