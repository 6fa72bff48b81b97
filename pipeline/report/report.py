"""Write a job as one HTML page: what was asked, the answers, errors, tokens and cost, speed, and a sample of rows.

The page holds everything that it shows: nothing is loaded, it can be read without scripts, and its
Content-Security-Policy forbids anything else. Texts of rows and servers are escaped, never markup.
"""

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import polars as pl

from ..costs import PriceList
from ..files import new_draft, write_whole
from ..folder import RunEnd, RunStart, read_history
from ..job import JobFile, is_news, served_text
from ..paths import special_kind
from ..planning import keys_path
from ..progress import Progress
from ..prompts import Prompts
from ..records import STATUSES, BadJob, Tally
from ..results import OpenJob, OutputTable, check_own_output, open_job, output_schema, with_all_columns
from ..store import read_ledger, read_served_models
from ..tables import check_place
from ..text import duration, printable, short_count
from ..version import __version__
from .figures import Figures
from .gold import gold_section
from .sample import RowSample, common_beginning
from .spending import Spending
from .text import clipped, dollars, first_line, number, price
from .values import CERTAINTY, PERCENTILES, column_summaries, percentiles

SETTING_BYTES = 20_000
"""Bytes that one text of the page outside of the sample may take, such as the prompt's template."""
RUNS_LISTED = 50
SHOWN_IN_FULL = {"endpoint.model", "prompt.template", "prompt.system", "answer.labels", "answer.schema"}
"""Settings that have a place of their own on the page, and are left out of its list of settings."""


def write_report(name: str | Path, output: Path | None = None, *, score: Mapping[str, Any] | None = None) -> Path:
    """Write a job as one HTML page, as far as its rows are answered, and return the page's path. Nothing is asked.

    `name`: an output or its job folder. `output`: the page; by default OUTPUT.report.html beside the job's output.
    `score`: the object that `pipeline score --json` prints, as plain dicts and lists, for the section on gold.

    The page is written atomically. Raises BadJob, with what to do, if it cannot be written; Stopped if the input
    changes meanwhile.
    """
    opened = open_job(name)
    with contextlib.closing(opened.reader):
        default = opened.job.output_path
        if output is None:
            check_own_output(name, opened.job)
        path = output or default.with_name(f"{default.name}.report.html")
        check_page(path)
        with Progress().counting("reading", opened.table.rows) as count_rows:
            content = _page(opened, read_history(opened.job.folder), score, count_rows)
    write_whole(path, _rendered(content).encode())
    return path


def check_page(path: Path) -> None:
    """Raise BadJob if the page cannot be written to this path, or if the extra for charts is not installed."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise BadJob(f"{path}: a report is an HTML page. Name a file such as {path.with_suffix('.html')}.")
    try:
        if not path.absolute().parent.is_dir():
            raise BadJob(f"{path} cannot be written: its folder does not exist.")
        if kind := special_kind(path):
            raise BadJob(f"{path} cannot be written: it is {kind}. Name a file with -o.")
        check_place(path)
        with new_draft(path):
            pass  # the folder takes new files
    except OSError as error:
        raise BadJob(f"{path} cannot be written: {error.strerror}. Name another page with -o.") from error
    _charts()


def _charts() -> ModuleType:
    try:
        from . import charts  # noqa: PLC0415 - an extra, and it takes two seconds
    except ImportError as error:
        raise BadJob(
            f"A report needs {error.name}, which is not installed. Install it and type the same line again:\n"
            "  pip install 'batch-prompt-pipeline[report]'"
        ) from None
    return charts


def _page(
    opened: OpenJob,
    history: Sequence[RunStart | RunEnd],
    score: Mapping[str, Any] | None,
    on_rows: Callable[[int], None],
) -> dict[str, Any]:
    """Read all rows, and give the variables of the template. `on_rows`: called with the number of rows just read."""
    job, table = opened.job, opened.table
    gold = None if score is None else gold_section(score)
    whole = with_all_columns(job, table)
    added_names = {whole.output.prefix + name: name for name in whole.added_columns}
    schema = output_schema(whole, table)
    counted = (*job.typed_columns, *CERTAINTY)
    figures = Figures({name: schema[long] for long, name in added_names.items() if name in counted})
    sample = RowSample(Prompts(job, list(table.schema)), list(job.typed_columns), None if gold is None else gold.gold)
    spending = Spending(PriceList(job), job.models[0])
    output = OutputTable(whole, table, keys_path(job.folder), opened.reader, spending.add)
    for frame in output.frames(on_rows):
        added = frame.select(pl.col(long).alias(name) for long, name in added_names.items())
        sample.add(frame, added, figures.rows)
        figures.add(added)
    rows, host = sample.rows(), job.endpoint.host
    return {
        "job": job,
        "table": table,
        "models": " + ".join(job.models),
        "served": [served_text(*each) for each in read_served_models(opened.reader).items() if is_news(host, *each)],
        "settings": list(_settings(opened)),
        "columns": list(column_summaries(job.typed_columns, figures)),
        "gold": gold,
        "sample": rows,
        "same": common_beginning(rows),
        "runs": _runs(history),
        "is_open": bool(history) and isinstance(history[-1], RunStart),
        **_sums(figures, spending, output.tally, read_ledger(opened.reader)),
    }


def _sums(figures: Figures, spending: Spending, tally: Tally, ledger: Tally) -> dict[str, Any]:
    """The template's variables that hold figures and charts."""
    course = figures.timeline.course()
    sizes = [
        ("latency", "seconds", figures.latency),
        ("prompt tokens", "tokens", figures.prompt_tokens),
        ("output tokens", "tokens", figures.output_tokens),
    ]
    titles = ("Latency, seconds", "Prompt tokens", "Output tokens")
    return {
        "figures": figures,
        "statuses": [(name, figures.by_status[name]) for name in STATUSES if name in figures.by_status],
        "tally": tally,
        "ledger": ledger,
        "spending": spending,
        "is_priced": spending.is_priced,
        "course": course,
        "charts": list(_charts().charts_of(course, sizes)),
        "percentile_names": PERCENTILES,
        "percentiles": [
            (title, percentiles(values)) for title, (*_, values) in zip(titles, sizes, strict=True) if values.rows
        ],
    }


def _settings(opened: OpenJob) -> Iterator[tuple[str, str]]:
    """Each setting that differs from its default, by dotted name; without keys and the values of headers."""
    for section, values in opened.job.without_secrets().items():
        defaults = getattr(JobFile.model_fields[section].annotation, "model_fields", {})
        for name, value in values.items():
            default = next((f.default for key, f in defaults.items() if name in (key, f.alias)), None)
            if value not in (None, default, "", {}) and f"{section}.{name}" not in SHOWN_IN_FULL:
                yield f"{section}.{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _runs(history: Sequence[RunStart | RunEnd]) -> list[tuple[RunStart, RunEnd | None]]:
    """Each run with its end, None if it was killed or is still running; the latest first."""
    runs: list[tuple[RunStart, RunEnd | None]] = []
    for each in history:
        if isinstance(each, RunStart):
            runs.append((each, None))
        elif runs and runs[-1][1] is None:
            runs[-1] = (runs[-1][0], each)
    return runs[: -RUNS_LISTED - 1 : -1]


def _rendered(content: dict[str, Any]) -> str:
    folder = Path(__file__).parent
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(folder),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "money": dollars,
        "price": price,
        "count": short_count,
        "duration": duration,
        "number": number,
        "text": lambda text: printable(clipped(str(text), SETTING_BYTES)),
        "tojson_text": lambda value: json.dumps(value, ensure_ascii=False, indent=2),
        "first_line": first_line,
        "integrity": lambda text: "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    }
    return environment.get_template("page.html").render(
        content,
        version=__version__,
        now=datetime.now(tz=UTC),
        style=(folder / "page.css").read_text("utf-8"),
        script=(folder / "page.js").read_text("utf-8"),
    )
