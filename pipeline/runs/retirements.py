"""What is said before a run of models that their provider has ended or will end soon. It never stops a run."""

from collections.abc import Iterator
from datetime import date

from ..job import Job, is_listed, retirement_note
from ..tables import Table
from ..text import one_line


def retirement_notes(job: Job, table: Table, today: date) -> list[str]:
    """A note on each model of a job, also of its rows (`columns.model`), that has ended or ends soon."""
    if not is_listed(job.endpoint.base_url):
        return []
    named = dict(_models(job, table))
    notes = (retirement_note(job.endpoint.base_url, model, setting, today) for model, setting in named.items())
    return [one_line(note) for note in notes if note is not None]


def _models(job: Job, table: Table) -> Iterator[tuple[str, str]]:
    """Each model with the key that names it; the rows' models first, since a job's own may be among them."""
    column = job.columns.model
    if column is not None and column in table.schema:
        for frame in table.slices([column]):
            for model in frame[column].drop_nulls().unique(maintain_order=True):
                yield str(model), "columns.model"
    setting = "endpoint.model" if job.answer.models is None else "answer.models"
    for model in job.models:
        yield model, setting
