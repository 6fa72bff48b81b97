"""Reuse of answers to an earlier contract of the job that fit the present one: the setting `answer.keep_old`."""

from collections.abc import Iterator, Sequence
from typing import Any

from ..folder import RunStart, read_history
from ..job import Job
from ..prompts import Prompts, Row
from ..records import Failure, Request
from ..store import Reader
from .chains import Chains


class EarlierAnswers:
    """The answers in a job folder to requests that differ from the present ones in their contract alone."""

    def __init__(self, job: Job, prompts: Prompts, reader: Reader) -> None:
        self._chains, self._reader = Chains(job, reader), reader
        contracts = earlier_contracts(job) if job.answer.keep_old else ()
        self._earlier = [prompts.under(contract) for contract in contracts]
        self.reused = 0
        """Number of requests so far whose answer is one to an earlier contract."""

    def keys_to_use(self, rows: Sequence[Row], keys: Sequence[str | None]) -> list[str | None]:
        """The key under which to find the answer of each request: its own, or that of an earlier contract.

        `keys` are the keys of all requests of `rows`, equally many for each row. An earlier key is used where the store
        has no outcome under the own key, and the chain under the earlier key ends with a valid answer. The contract of
        the latest run is tried first.
        """
        chosen = list(keys)
        for prompts in self._earlier:
            answered = self._reader.stored([key for key in chosen if key is not None])
            missing = [place for place, key in enumerate(chosen) if key is not None and key not in answered]
            old = {place: key for place in missing if (key := _key_at(prompts, rows, place, len(keys))) is not None}
            chains = self._chains.follow([Request(key, b"") for key in old.values()])
            for place, chain in zip(old, chains, strict=True):
                if chain.status == "ok":
                    chosen[place] = old[place]
                    self.reused += 1
        return chosen


def _key_at(prompts: Prompts, rows: Sequence[Row], place: int, places: int) -> str | None:
    """The key of the request at `place` among all `places` requests of the rows."""
    row, sample = divmod(place, places // len(rows))
    requests = prompts.requests(rows[row])
    return None if isinstance(requests, Failure) else requests[sample].key


def earlier_contracts(job: Job) -> Iterator[dict[str, Any]]:
    """The contracts of earlier runs that differ from this one in nothing else the model sees; the latest first."""
    now, secrets = job.seen_by_model(), job.endpoint.secrets
    known = [now["answer"]]
    for run in reversed(read_history(job.folder)):
        if not isinstance(run, RunStart):
            continue
        contract = run.seen_by_model.get("answer")
        if run.changed_settings(now, secrets) == ["answer"] and isinstance(contract, dict) and contract not in known:
            known.append(contract)
            yield contract
