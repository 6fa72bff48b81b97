"""Jobs to report on, and what stands in a report's page: for the tests of the report."""

import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
from chat_server import Canned, ChatServer, Seen, completion, problem

from pipeline import Job, Summary, ThisRun, run
from pipeline.results.columns import FIXED

PRICES = {"prices.input": 0.1, "prices.cached_input": 0.025, "prices.output": 0.4}


LABELS = ["positive", "negative", "ein sehr langes Etikett für Beschwerden über verspätete Lieferungen", "شكوى", "退货"]


HOSTILE = [
    "</pre></details><script>alert(1)</script>",
    "<img src=x onerror=alert(1)> & \" ' `",
    "\u202etxt.exe\u202c \x1b[31mred\x07",
    "שלום עולם, איך המוצר?",
    "这个产品非常好" * 30,
    "👩‍👩‍👧‍👦 🎉",
    "{{ 7 * 7 }} {% raw %}",
    "unbroken" * 60,
]


class Page(HTMLParser):
    """A page read back: its elements, and the cells of its tables."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        self._in_cell = self._in_cell or tag in ("td", "th")
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data

    def row(self, *beginning: str) -> list[str]:
        """The cells after these, in the first row that begins with them."""
        return next(row[len(beginning) :] for row in self.rows if tuple(row[: len(beginning)]) == beginning)


def run_into(folder: Path, server: ChatServer, frame: pl.DataFrame, **settings: Any) -> Summary:
    folder.mkdir(exist_ok=True)
    frame.write_parquet(folder / "in.parquet")
    dotted = {"endpoint.base_url": server.url, "endpoint.model": "m", **settings}
    this_run = ThisRun(verbosity=-1)
    return run(Job.load([folder / "in.parquet"], folder / "out.csv", settings=dotted, this_run=this_run))


def labelled(seen: Seen, attempt: int) -> Canned | None:
    """Most rows get the label of their number, some a wrong one, a few none."""
    asked_first = next(message["content"] for message in seen.body["messages"] if message["role"] == "user")
    number = int(asked_first.split()[-1])
    if number % 20 == 7:
        return Canned(400, problem("<b>too</b> long: 4,097 tokens", code="context_length_exceeded"))
    if number % 20 == 3:
        return Canned(body=completion("No idea."))
    if number % 60 == 5 and attempt == 1:
        return Canned(429, problem("slow down"), {"retry-after-ms": "1"})
    usage = {
        "prompt_tokens": 20 + number % 9,
        "completion_tokens": 6,
        "total_tokens": 26 + number % 9,
        "prompt_tokens_details": {"cached_tokens": 8},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    label = LABELS[(number + (number % 7 == 0)) % len(LABELS)]
    return Canned(body=completion(json.dumps({"label": label}), usage=usage), delay_seconds=0.01 * (number % 11))


BEGAN = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


def answered(seconds: list[float], *, label: str = "a") -> pl.DataFrame:
    """The added columns of rows asked at these seconds, each with a latency of half a second."""
    rows = {
        "answer": label,
        "status": "ok",
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "total_tokens": 15,
        "cost": 0.5,
        "latency_seconds": 0.5,
        "attempts": 1,
    }
    values = {name: [rows.get(name)] * len(seconds) for name in FIXED}
    values["asked_at"] = [BEGAN + timedelta(seconds=each) for each in seconds]
    return pl.DataFrame(values, schema=FIXED).with_columns(label=pl.lit(label))
