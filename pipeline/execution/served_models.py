"""Which models answered, as their answers name them; and what is said when that is not the model that was asked for.

Counted over the life of the job folder, by the name that was asked for. Retired models are rerouted silently, so a new
name is told at its first answer.
"""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from ..job import Job, is_router, is_same_model, names_models
from ..progress import Progress
from ..records import Answer, Request
from ..store import SERVED_MODELS, Store
from ..text import one_line

ASKED_MAX = 100
"""How many asked names are followed: rows may name their own."""

NAMES_MAX = 20
"""How many names of answers are counted for each; the answers of further ones are counted together, under ''."""

TOLD_MAX = 5
"""The most new names that are told for each name that was asked for: a fleet may answer with many."""

NAME_CHARACTERS = 100


class News(NamedTuple):
    """What is said of a name that is new."""

    text: str
    is_alarm: bool
    """False: it is only something to know."""


class ServedModels:
    """The names that answers gave, with their numbers of answers."""

    def __init__(self, job: Job, earlier: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """`earlier`: the counts of earlier runs, by the name that was asked for."""
        self._host, self._first_model, self._is_local = job.endpoint.host, job.models[0], job.endpoint.is_local
        self.counts = {asked: dict(names) for asked, names in (earlier or {}).items()}
        """By the name that was asked for: the names in the answers, in order, with their numbers of answers."""
        self._told: dict[str, int] = {}

    def count(self, request: Request, answer: Answer, store: Store, progress: Progress | None) -> None:
        """Count an answer, and note the counts in the store. An alarm is said on the screen, other news in the log."""
        if not answer.model or self._is_local:
            return
        news = self.add(request.model or self._first_model, answer.model)
        store.note(SERVED_MODELS, self._encoded)
        if news is not None and progress is not None:
            (progress.say if news.is_alarm else progress.note)(news.text)

    def uncount(self, request: Request, answer: Answer) -> None:
        """Take an answer out of the counts."""
        names = self.counts.get((request.model or self._first_model)[:NAME_CHARACTERS], {})
        served = (answer.model or "")[:NAME_CHARACTERS]
        served = served if served in names else ""
        if names.get(served):
            names[served] -= 1

    def _encoded(self) -> bytes:
        return msgspec.json.encode(self.counts)  # called in the store's thread; no other thread runs meanwhile

    def add(self, asked: str, served: str) -> News | None:
        """Count an answer of the model `served`, which was asked of the model `asked`."""
        asked, served = asked[:NAME_CHARACTERS], served[:NAME_CHARACTERS]
        names = self.counts.get(asked)
        if names is not None and served in names:
            names[served] += 1
            return None
        return self._add_new(asked, served)

    def _add_new(self, asked: str, served: str) -> News | None:
        if asked not in self.counts and len(self.counts) >= ASKED_MAX:
            return None
        names = self.counts.setdefault(asked, {})
        news = self._news(asked, served, names)
        kept = served if len(names) < NAMES_MAX else ""
        names[kept] = names.get(kept, 0) + 1
        if news is None or not kept:
            return None
        self._told[asked] = told = self._told.get(asked, 0) + 1
        if told == TOLD_MAX:
            return News(f"{news.text}\nFurther names are not told.", news.is_alarm)
        return news if told < TOLD_MAX else None

    def _news(self, asked: str, served: str, names: Mapping[str, int]) -> News | None:
        """What a name that is new means: nothing, something to know, or an alarm."""
        answers = sum(names.values())
        known = [name for name in names if name]
        if is_router(asked) or any(is_same_model(name, served) for name in known):
            return None
        asked_name, served_name = one_line(asked), one_line(served)
        if known:
            before = one_line(max(known, key=lambda name: names[name])) + (" and others" if len(known) > 1 else "")
            return News(
                f"Another model answers now: {served_name}. The {answers:,} answers so far for {asked_name} came from "
                f"{before}.\nThe column `model` tells them apart. A model that is named with its date is not "
                "exchanged; endpoint.revision asks all rows anew.",
                is_alarm=True,
            )
        if is_same_model(asked, served):
            return None
        if names_models(self._host):
            return News(
                f"Another model than asked answers: {served_name}, not {asked_name}. The provider may have retired "
                "that one.\nIf this is not what you want, stop the job and change endpoint.model.",
                is_alarm=True,
            )
        return News(f"the endpoint answers under the name {served_name}; asked for was {asked_name}", is_alarm=False)
