"""The first requests of a job as they would be sent."""

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ..answers import RESPONSE_FORMATS, ContractEncoder, contract_of
from ..job import Job
from ..prompts import Prompts
from ..records import Failure
from ..results import numbered_rows, output_schema
from ..tables import open_table
from ..text import one_line, printable
from .local_server import name_by_weights

IMAGE = re.compile(r"(data:image/[a-z]+;base64,.{0,40})[^\"]*")
"""An image in a request body: only the beginning of its data is shown."""


def preview_requests(job: Job, rows: int) -> Iterator[str]:
    """Yield the first rows' request bodies as they would be sent, or why a row cannot be asked.

    Raises BadJob as `run` does.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = name_by_weights(job)
        table = open_table(job.inputs, Path(folder)).head(rows)
        output_schema(job, table)
        contract_of(job)
        encoder = ContractEncoder(job.answer.contract)
        prompts = Prompts(job, list(table.schema))
        for number, row in numbered_rows(table.slices(prompts.columns)):
            requests = prompts.requests(row)
            yield f"row {number} → {one_line(job.endpoint.host)}"
            if isinstance(requests, Failure):
                yield f"cannot be asked: {printable(requests.reason)}"
                continue
            for request in requests:
                body = msgspec.json.decode(encoder.encode(request.body, RESPONSE_FORMATS[0]))
                yield printable(IMAGE.sub(r"\1…", json.dumps(body, ensure_ascii=False, indent=2)))
        if not table.rows:
            yield "The input has no rows."
