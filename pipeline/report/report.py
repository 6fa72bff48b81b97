"""A job as one HTML page: what was asked, what came out, what it cost and how fast it went. Reads, never asks.

The page holds all that it shows: nothing is fetched, no script is needed to read it, and a Content-Security-Policy
lets nothing else in. What a row or a server said is text in it, never markup.
"""

import base64
import bisect
import contextlib
import hashlib
import html
import json
import math
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import polars as pl

from ..costs import PriceList
from ..files import write_whole
from ..folder import RunEnd, RunStart, read_history
from ..job import Job, JobFile
from ..planning import keys_path
from ..progress import Progress
from ..prompts import Prompts
from ..records import STATUSES, BadJob, Record, Status, Tally
from ..results import OutputTable, open_job, output_schema, with_all_columns
from ..store import Reader, read_ledger
from ..tables import Table
from ..text import did_you_mean, duration, money, printable, short_count
from ..version import __version__
from .figures import Course, Figures, Spread
from .spending import Spending

SAMPLE_ROWS = 200
PROMPT_BYTES, ANSWER_BYTES, ERROR_BYTES = 2_600, 2_000, 500
"""What a row of the sample may take of the page, so that 200 of them stay about a megabyte."""
SETTING_BYTES = 20_000
SURENESS = {
    "agreement": "the share of a row's opinions that hold what is shown",
    "confidence": "how likely the model found its answer, from 0 to 1",
    "repaired": "how an answer that did not fit at once came to fit",
}
"""Columns beside the answer's own that say how sure it is, where a job has them."""
LINE_CHARACTERS = 160
LABEL_BYTES = 300
LABELS_MOST = 200
MATRIX_LABELS = 10
"""With more labels than this, the commonest confusions are listed instead of a matrix."""
PAIRS_MOST = 20
RUNS_MOST = 50


class Shown(Record, frozen=True):
    """A row of the sample, as the page has it."""

    row: int
    status: Status
    prompt: str
    answer: str
    typed: dict[str, str]
    error: str
    gold: str
    facts: list[str]


class Picture(Record, frozen=True):
    """A chart."""

    title: str
    label: str
    """What it shows, for who cannot see it."""
    svg: str
    legend: tuple[str, ...] = ()


class Column(Record, frozen=True):
    """A column of the answer: its values, or percentiles of its numbers; neither, if there are too many texts."""

    name: str
    rows: int
    values: list[tuple[str, int]] | None = None
    """With their rows, the commonest first."""
    more: int = 0
    """Rarer values that are not among these."""
    never: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    meaning: str = ""
    """In words, of a column that is not the answer's own."""


class Confusion(Record, frozen=True):
    """What was answered for which gold: (gold, answer, rows). An answer of None is none."""

    rows: int
    right: int
    matrix: list[tuple[str, list[tuple[str | None, int]]]] | None
    wrong: list[tuple[str, str | None, int]]
    more: int
    """Kinds of mistakes that are not among these."""


def write_report(name: str | Path, output: Path | None = None, *, gold: str | None = None) -> Path:
    """Write a job as one HTML page, and give where: `output`, or OUTPUT.report.html beside the job's own output.

    `gold`: the input's column that the answers are held against. Raises BadJob, with the remedy, if the page cannot be
    made.
    """
    from ..report import check_page, write  # noqa: PLC0415 - what draws is an extra

    job, table, reader, *_ = open_job(name)
    path = output or job.output_path.with_name(f"{job.output_path.name}.report.html")
    with contextlib.closing(reader):
        check_page(path)
        with Progress().counting("reading", table.rows) as seen:
            write(path, job, table, reader, read_history(job.folder), gold=gold, told=seen)
    return path


def check_page(path: Path) -> None:
    """Raise BadJob if the page could not be written there, or what draws is not installed."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise BadJob(f"{path}: a report is an HTML page. Name a file such as {path.with_suffix('.html')}.")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise BadJob(f"{path} cannot be written: it is a folder, or its folder is not there.")
    _charts()


def _charts() -> ModuleType:
    try:
        from . import charts  # noqa: PLC0415 - an extra, and it takes two seconds
    except ImportError as error:
        raise BadJob(
            f"A report needs what is not installed here ({error.name}). Install it, and type the same line again:\n"
            "  pip install 'batch-prompt-pipeline[report]'"
        ) from None
    return charts


def write(
    path: Path,
    job: Job,
    table: Table,
    reader: Reader,
    runs: Sequence[RunStart | RunEnd],
    *,
    gold: str | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> None:
    """Write the page, atomically, from the rows as far as they are known.

    `runs`: the job's history; `gold`: a column of the input; `told`: called with how many further rows were read.
    Raises BadJob if gold is no column or there are no labels to hold against it, Stopped if the input changed.
    """
    judged = None if gold is None else _judged(job, table, gold)
    whole = with_all_columns(job, table)
    names = {whole.output.prefix + name: name for name in whole.added_columns}
    schema = output_schema(whole, table)
    counted = (*job.typed_columns, *SURENESS)
    figures = Figures({name: schema[long] for long, name in names.items() if name in counted}, judged)
    sample = _Sample(Prompts(job, list(table.schema)), list(job.typed_columns), gold)
    spending = Spending(PriceList(job), job.models[0])
    cells = OutputTable(whole, table, keys_path(job.folder), reader, spending.add)
    for frame in cells.frames(told):
        added = frame.select(pl.col(long).alias(name) for long, name in names.items())
        sample.add(frame, added, figures.rows)
        figures.add(added, frame[gold] if gold is not None else None)
    page = _page(job, table, figures, spending, cells.tally, read_ledger(reader), runs)
    drawn = sample.rows()
    page |= {"gold": gold, "sample": drawn, "same": _same_beginning(drawn)}
    write_whole(path, _rendered(page).encode())


def _judged(job: Job, table: Table, gold: str) -> str:
    """The column of the answer that gold is held against."""
    if gold not in table.schema:
        raise BadJob(f"--gold {gold}: the input has no such column{did_you_mean(gold, list(table.schema))}")
    if gold in job.typed_columns:
        return gold
    names = [name for name, schema in job.typed_columns.items() if _enumerated(schema)]
    if len(names) != 1:
        columns = ", ".join(job.typed_columns) or "none: its answers are free text"
        raise BadJob(
            f"--gold {gold}: gold is held against the one column of labels, or against a column of its own name.\n"
            f"The answer's columns: {columns}."
        )
    return names[0]


def _page(
    job: Job,
    table: Table,
    figures: Figures,
    spending: Spending,
    tally: Tally,
    ledger: Tally,
    runs: Sequence[RunStart | RunEnd],
) -> dict[str, Any]:
    """What the template prints."""
    course = figures.timeline.course()
    return {
        "version": __version__,
        "now": datetime.now(tz=UTC),
        "job": job,
        "table": table,
        "tally": tally,
        "ledger": ledger,
        "figures": figures,
        "models": " + ".join(job.models),
        "priced": spending.is_priced,
        "statuses": [(name, figures.by_status[name]) for name in STATUSES if name in figures.by_status],
        "settings": list(_settings(job)),
        "spending": spending,
        "course": course,
        "pictures": list(_pictures(figures, course)),
        "spreads": list(_spreads(figures)),
        "labels": list(_labels(job, figures)),
        "confusion": _confusion(job, figures.pairs) if figures.pairs else None,
        "countless_gold": figures.pairs is None,
        "runs": _runs(runs),
        "open": bool(runs) and isinstance(runs[-1], RunStart),
    }


def _settings(job: Job) -> Iterator[tuple[str, str]]:
    """Every setting that is not at its default, by dotted name; keys and headers' values are not among them."""
    told = {"endpoint.model", "prompt.template", "prompt.system", "answer.labels", "answer.schema"}  # in full elsewhere
    for section, values in job.without_secrets().items():
        defaults = getattr(JobFile.model_fields[section].annotation, "model_fields", {})
        for name, value in values.items():
            default = next((f.default for key, f in defaults.items() if name in (key, f.alias)), None)
            if value not in (None, default, "", {}) and f"{section}.{name}" not in told:
                yield f"{section}.{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _pictures(figures: Figures, course: Course | None) -> Iterator[Picture]:
    """The charts, without those that would tell nothing."""
    charts = _charts()
    if course is not None and len(course.points) > 2:
        _, unit = charts.per(course)
        over = f"over {duration(course.seconds)}"
        yield Picture(f"Rows a {unit}", f"Bars: rows answered a {unit}, {over}.", charts.throughput(course))
        yield Picture(
            "Latency, seconds",
            f"Lines: median and 95th percentile of the latency, {over}.",
            charts.latency(course),
            ("median", "95 %"),
        )
        if figures.prompt_tokens.rows or figures.output_tokens.rows:
            told = f"Lines: prompt and output tokens a second, {over}."
            yield Picture("Tokens a second", told, charts.tokens(course), ("prompt", "output"))
    for name, spread, unit in (
        ("latency", figures.latency, "seconds"),
        ("prompt tokens", figures.prompt_tokens, "tokens"),
        ("output tokens", figures.output_tokens, "tokens"),
    ):
        if bars := spread.bars():
            middle, slow = _number(spread.percentile(0.5)), _number(spread.percentile(0.99))
            told = f"Histogram of {name}: median {middle} {unit}, 99th percentile {slow}."
            yield Picture(f"Rows by {name}", told, charts.histogram(bars, unit))


def _spreads(figures: Figures) -> Iterator[tuple[str, list[str]]]:
    """The percentiles of what has any."""
    named = {
        "Latency, seconds": figures.latency,
        "Prompt tokens": figures.prompt_tokens,
        "Output tokens": figures.output_tokens,
    }
    return ((name, _percentiles(spread)) for name, spread in named.items() if spread.rows)


def _percentiles(spread: Spread) -> list[str]:
    """Mean, least, median, 90 %, 95 %, 99 %, most."""
    return [_number(spread.mean), *(_number(spread.percentile(share)) for share in (0.0, 0.5, 0.9, 0.95, 0.99, 1.0))]


def _labels(job: Job, figures: Figures) -> Iterator[Column]:
    """The columns of the answer, and what tells how sure it is, if it has any."""
    texts = figures.texts
    sure: dict[str, dict[str, Any]] = {name: {} for name in SURENESS if texts.get(name) or name in figures.numbers}
    for name, schema in (job.typed_columns | sure).items():
        spread = figures.numbers.get(name)
        if spread is not None and spread.different > MATRIX_LABELS:
            yield Column(name, spread.rows, numbers=tuple(_percentiles(spread)), meaning=SURENESS.get(name, ""))
            continue
        counts = texts[name] if spread is None else [(_number(value), rows) for value, rows in spread.counts]
        known = _enumerated(schema)
        if counts is None or (not known and MATRIX_LABELS < len(counts) > sum(rows for _, rows in counts) / 2):
            yield Column(name, figures.rows)
            continue
        seen = {value for value, _ in counts}
        yield Column(
            name,
            rows=sum(rows for _, rows in counts),
            meaning=SURENESS.get(name, ""),
            values=[(clipped(value, LABEL_BYTES), rows) for value, rows in counts[:LABELS_MOST]],
            more=max(0, len(counts) - LABELS_MOST),
            never=tuple(clipped(value, LABEL_BYTES) for value in known if value not in seen)[:LABELS_MOST],
        )


def _enumerated(schema: object) -> list[str]:
    """The values that a property may have, if it lists them."""
    values = schema.get("enum") if isinstance(schema, dict) else None
    return [str(value) for value in values] if isinstance(values, list) else []


def _confusion(job: Job, pairs: list[tuple[str, str | None, int]]) -> Confusion:
    """What was answered for which gold, as a matrix where that fits a page."""
    golds = dict.fromkeys([*(job.answer.labels or ()), *sorted({gold for gold, *_ in pairs})])
    answers: dict[str | None, None] = dict.fromkeys(
        [*golds, *sorted({each for _, each, _ in pairs if each is not None})]
    )
    matrix = None
    if len(answers) <= MATRIX_LABELS:
        if any(answer is None for _, answer, _ in pairs):
            answers[None] = None
        found = {(gold, answer): rows for gold, answer, rows in pairs}
        matrix = [(gold, [(answer, found.get((gold, answer), 0)) for answer in answers]) for gold in golds]
    wrong = [pair for pair in pairs if pair[0] != pair[1]]
    return Confusion(
        rows=sum(rows for *_, rows in pairs),
        right=sum(rows for gold, answer, rows in pairs if gold == answer),
        matrix=matrix,
        wrong=wrong[:PAIRS_MOST],
        more=max(0, len(wrong) - PAIRS_MOST),
    )


def _runs(lines: Sequence[RunStart | RunEnd]) -> list[tuple[RunStart, RunEnd | None]]:
    """Each run with its end, if it came to one; the latest first."""
    runs: list[tuple[RunStart, RunEnd | None]] = []
    for line in lines:
        if isinstance(line, RunStart):
            runs.append((line, None))
        elif runs and runs[-1][1] is None:
            runs[-1] = (runs[-1][0], line)
    return runs[: -RUNS_MOST - 1 : -1]


class _Sample:
    """Rows drawn by chance, the same each time, so many of each status as there is room for."""

    def __init__(self, prompts: Prompts, typed: Sequence[str], gold: str | None) -> None:
        self._prompts, self._typed, self._gold = prompts, typed, gold
        self._drawn: dict[Status, list[tuple[int, Shown]]] = {}
        """By their lots, ascending: those of the lowest stay."""

    def add(self, frame: pl.DataFrame, added: pl.DataFrame, before: int) -> None:
        """Draw from the next rows: `added` are their cells, `before` how many came before."""
        lots = pl.int_range(before, before + frame.height, eager=True).hash(seed=1)
        places = pl.DataFrame({"lot": lots, "status": added["status"]}).with_row_index("at")
        for (status,), group in places.partition_by("status", as_dict=True).items():
            drawn = self._drawn.setdefault(status, [])
            for at, lot in group.bottom_k(SAMPLE_ROWS, by="lot").sort("lot").select("at", "lot").iter_rows():
                if len(drawn) == SAMPLE_ROWS and lot > drawn[-1][0]:
                    break
                shown = self._shown(before + at + 1, frame.row(at, named=True), added.row(at, named=True))
                bisect.insort(drawn, (lot, shown), key=lambda each: each[0])
                del drawn[SAMPLE_ROWS:]

    def _shown(self, number: int, row: dict[str, Any], cells: dict[str, Any]) -> Shown:
        facts = [
            f"{cells[name]:,} {name.removesuffix('_tokens')} tokens"
            for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens")
            if cells[name] is not None
        ]
        facts += [_dollars(cells["cost"])] if cells["cost"] else []
        facts += [f"{cells['latency_seconds']:.2f} s"] if cells["latency_seconds"] is not None else []
        facts += [f"{cells['attempts']} attempts"] if (cells["attempts"] or 0) > 1 else []
        facts += [f"{name} {cells[name]:.0%}" for name in ("agreement", "confidence") if cells.get(name) is not None]
        facts += [f"repaired: {cells['repaired']}"] if cells.get("repaired") else []
        facts += (
            [f"opinions: {' | '.join(said or 'none' for said in cells['opinions'])}"] if "opinions" in cells else []
        )
        facts += [f"ended by {cells['finish_reason']}"] if cells["finish_reason"] not in (None, "stop") else []
        return Shown(
            row=number,
            status=cells["status"],
            prompt=clipped(self._prompts.shown(row), PROMPT_BYTES),
            answer=clipped(cells["answer"] or "", ANSWER_BYTES),
            typed={name: clipped(str(cells[name]), LABEL_BYTES) for name in self._typed if cells[name] is not None},
            error=clipped(cells["error"] or "", ERROR_BYTES),
            gold="" if self._gold is None or row[self._gold] is None else clipped(str(row[self._gold]), LABEL_BYTES),
            facts=[clipped(fact, LABEL_BYTES) for fact in facts],
        )

    def rows(self) -> list[Shown]:
        """The sample, in the table's order."""
        shares = _shared_out({status: len(drawn) for status, drawn in self._drawn.items()}, SAMPLE_ROWS)
        chosen = [shown for status, drawn in self._drawn.items() for _, shown in drawn[: shares[status]]]
        return sorted(chosen, key=lambda shown: shown.row)


def _same_beginning(sample: Sequence[Shown]) -> int:
    """How many characters all prompts begin with, up to the end of a word: what tells no row from another."""
    if len(sample) < 2:
        return 0
    first, last = min(shown.prompt for shown in sample), max(shown.prompt for shown in sample)
    same = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return max(first.rfind(end, 0, same) for end in " \n") + 1


def _shared_out(wanted: dict[Status, int], room: int) -> dict[Status, int]:
    """Room in equal parts; what one does not need is left to the others."""
    shares = {}
    for left, (name, most) in zip(
        range(len(wanted), 0, -1), sorted(wanted.items(), key=lambda each: each[1]), strict=True
    ):
        shares[name] = min(most, room // left)
        room -= shares[name]
    return shares


def clipped(text: str, most_bytes: int) -> str:
    """Text that takes no more than so many bytes of the page: its beginning and its end, and how much is between."""
    if len(text) <= most_bytes // 6:  # no character takes more than six
        return text
    head = _fitting(text[:most_bytes], most_bytes * 2 // 3)
    tail = _fitting(text[: -most_bytes - 1 : -1], most_bytes // 3)
    left_out = len(text) - head - tail
    return text if left_out <= 0 else f"{text[:head]} […{left_out:,} characters…] {text[len(text) - tail :]}"


def _fitting(text: str, most_bytes: int) -> int:
    """How many characters from the beginning take no more than so many bytes once they are escaped."""
    sizes = accumulate(len(html.escape(character).encode("utf-8", "replace")) for character in text)
    return sum(1 for size in sizes if size <= most_bytes)


def _dollars(cost: float) -> str:
    """As `money`, without an exponent."""
    return money(cost) if not 0 < cost < 0.0001 else f"${cost:.{1 - math.floor(math.log10(cost))}f}"


def _price(dollars: float) -> str:
    """`$0.10`, `$0.025`: all digits that it has, two at least."""
    whole, digits = f"{dollars:,.6f}".split(".")
    return f"${whole}.{digits.rstrip('0'):0<2}"


def _number(value: float | None) -> str:
    """`12,340`, `0.42`, `3.1`; `none` for none."""
    if value is None:
        return "none"
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _begins(text: str) -> str:
    """The beginning of a text, on one line."""
    return " ".join(text[: 4 * LINE_CHARACTERS].split())[:LINE_CHARACTERS]


def _rendered(page: dict[str, Any]) -> str:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "money": _dollars,
        "price": _price,
        "count": short_count,
        "duration": duration,
        "number": _number,
        "text": lambda text: printable(clipped(str(text), SETTING_BYTES)),
        "tojson_text": lambda value: json.dumps(value, ensure_ascii=False, indent=2),
        "begins": _begins,
        "integrity": lambda text: "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    }
    return environment.get_template("page.html").render(page)
