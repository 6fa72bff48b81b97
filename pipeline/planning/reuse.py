"""Answers to an earlier contract of the job that fit the present one: `answer.keep_old`."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..folder import RunStart, read_history
from ..job import Job
from ..prompts import Prompts, Row
from ..records import Failure, Request
from ..store import Reader
from .chains import Chains


class EarlierAnswers:
    """The answers that were given in a job folder when its contract, and nothing else, was another."""

    def __init__(self, job: Job, prompts: Prompts, reader: Reader) -> None:
        self._chains, self._reader = Chains(job, reader), reader
        contracts = earlier_contracts(job) if job.answer.keep_old else ()
        self._earlier = [prompts.under(contract) for contract in contracts]
        self.taken = 0
        """Requests whose answer is an old one."""

    def keys(self, rows: Sequence[Row], keys: Sequence[str | None]) -> list[str | None]:
        """Where each answer lies: under its own key, or if there is none under an earlier one that fits.

        `keys`: of all requests of the rows, equally many of each.
        """
        kept = list(keys)
        for prompts in self._earlier:
            found = self._reader.get_many([key for key in kept if key is not None])
            answered = {key for key, stored in zip(filter(None, kept), found, strict=True) if stored is not None}
            missing = [place for place, key in enumerate(kept) if key is not None and key not in answered]
            old = {place: key for place in missing if (key := _key_at(prompts, rows, place, len(keys))) is not None}
            chains = self._chains.follow([Request(key, b"") for key in old.values()])
            for place, chain in zip(old, chains, strict=True):
                if chain.status == "ok":  # as it is, or after it was asked again
                    kept[place] = old[place]
                    self.taken += 1
        return kept


def _key_at(prompts: Prompts, rows: Sequence[Row], place: int, places: int) -> str | None:
    """The key of one of the rows' requests, by its place among them all."""
    row, opinion = divmod(place, places // len(rows))
    requests = prompts.requests(rows[row])
    return None if isinstance(requests, Failure) else requests[opinion].key


def earlier_contracts(job: Job) -> Iterator[dict[str, Any]]:
    """The contracts of earlier runs that were as this one in all else that the model sees, the last one first."""
    now = job.seen_by_model()
    told = [now["answer"]]
    for run in reversed(read_history(job.folder)):
        before = run.seen_by_model if isinstance(run, RunStart) else {}
        changed = {name for name in now if now[name] != before.get(name)}
        contract = before.get("answer")
        if changed == {"answer"} and isinstance(contract, dict) and contract not in told:
            told.append(contract)
            yield contract
