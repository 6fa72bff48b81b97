"""A job's page tells what the summary tells, holds all that it shows, and reads well on any screen and on paper."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from browser import Browser, browser, missing
from chat_server import Canned, ChatServer, Seen, completion, problem

from pipeline import BadJob, Job, Summary, ThisRun, run
from pipeline.records import Status
from pipeline.report.report import SAMPLE_ROWS, _shared_out, clipped, write_report

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
    """What stands in a page: its elements, and the cells of its tables."""

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
        """The cells that follow these in the first row that begins so."""
        return next(row[len(beginning) :] for row in self.rows if tuple(row[: len(beginning)]) == beginning)


def asked(folder: Path, server: ChatServer, frame: pl.DataFrame, **settings: Any) -> Summary:
    folder.mkdir(exist_ok=True)
    frame.write_parquet(folder / "in.parquet")
    dotted = {"endpoint.base_url": server.url, "endpoint.model": "m", **settings}
    this_run = ThisRun(verbosity=-1)
    return run(Job.load([folder / "in.parquet"], folder / "out.csv", settings=dotted, this_run=this_run))


def labelled(seen: Seen, attempt: int) -> Canned | None:
    """Most rows get the label that stands in their text, some another, a few none."""
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


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Summary]]:
    """A job of 240 rows that was asked, with labels, gold, failures and texts of every kind; and how it ended."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = range(240)
    frame = pl.DataFrame(
        {
            "text": [f"{HOSTILE[row % len(HOSTILE)]} {row if row % 40 else 0}" for row in rows],
            "gold": [LABELS[row % len(LABELS)] if row % 6 else None for row in rows],
        }
    )
    settings = {
        **PRICES,
        "limits.concurrency": 16,
        "prompt.template": "Label this: {{ text }}",
        "prompt.system": "Be <kind>.",
        "answer.labels": LABELS,
    }
    with ChatServer(labelled) as server:
        summary = asked(folder, server, frame, **settings)
    yield folder / "out.csv", summary
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def page(job: tuple[Path, Summary]) -> Path:
    return write_report(job[0], gold="gold")


# ---- what it tells


def test_its_numbers_are_those_of_the_summary(job: tuple[Path, Summary], page: Path) -> None:
    told, rows = Page(page), job[1].rows
    for status in ("ok", "invalid", "failed"):
        assert told.row(status)[0] == f"{getattr(rows, status):,}", status
    assert told.row("all")[0] == "240"
    assert told.row("all")[2:4] == [f"{rows.usage.prompt_tokens:,}", f"{rows.usage.billed_output_tokens:,}"]
    assert told.row("These rows")[0] == f"{job[1].run.tokens:,}"  # asked again, and not shown, among them
    repeated = sum(1 for row in range(240) if row % 40 == 0 and row % len(HOSTILE) == 0) - 1
    assert f"{repeated} rows are equal to an earlier one" in told.source


def test_where_the_tokens_and_the_money_went_adds_up(job: tuple[Path, Summary], page: Path) -> None:
    told, table = Page(page), pl.read_csv(job[0]).filter(pl.col("attempts") > 0)
    cached, reasoning = table["cached_tokens"].sum(), table["reasoning_tokens"].sum()
    counts = {
        "Prompt": table["prompt_tokens"].sum() - cached,
        "Prompt, cached by the endpoint": cached,
        "Answers": table["completion_tokens"].sum() - reasoning,
        "Reasoning, not shown": reasoning,
    }
    assert {what: told.row(what)[0] for what in counts} == {what: f"{count:,}" for what, count in counts.items()}
    assert [told.row(what)[1] for what in counts] == ["$0.10", "$0.025", "$0.40", "$0.40"]
    begins, ends = (next(at for at, row in enumerate(told.rows) if row[0] == what) for what in ("Prompt", "These rows"))
    parts = [float(row[3].removeprefix("$")) for row in told.rows[begins:ends]]
    assert sum(parts) == pytest.approx(job[1].rows.cost, rel=0.05)  # each is told to two digits


def opinion(seen: Seen, _attempt: int) -> Canned:
    """Two models of different prices; every third row's first answer does not fit, and one model disagrees."""
    again, dear = len(seen.body["messages"]) > 1, seen.body["model"] == "dear"
    question = seen.body["messages"][0]["content"]
    if int(question.split()[-1]) % 3 == 0 and dear and not again:
        return Canned(body=completion("Who knows?", usage={"prompt_tokens": 10, "completion_tokens": 3}))
    label = "yes" if dear or int(question.split()[-1]) % 4 else "no"
    usage = {
        "prompt_tokens": 30 if again else 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    return Canned(body=completion(json.dumps({"label": label}), usage=usage))


def test_each_models_tokens_are_told_at_its_prices_and_what_was_asked_again_beside_them(tmp_path: Path) -> None:
    settings = {
        "answer.labels": ["yes", "no"],
        "answer.models": ["cheap", "dear"],
        "prices.models.cheap": {"input": 1.0, "output": 2.0},
        "prices.models.dear": {"input": 100.0, "cached_input": 50.0, "output": 200.0},
    }
    with ChatServer(opinion) as server:
        frame = pl.DataFrame({"prompt": [f"row {number}" for number in range(12)]})
        summary = asked(tmp_path, server, frame, **settings)
        assert server.arrived == 24 + 4
    told = Page(write_report(tmp_path / "out.csv"))
    # of dear's 12 first answers 4 do not fit: those have no cached tokens, and are asked again
    assert told.row("cheap: prompt") == ["72", "$1.00", "$0.000072", ""]
    assert told.row("cheap: prompt, cached by the endpoint") == ["48", "$1.00", "$0.000048", ""]
    assert told.row("cheap: answers") == ["60", "$2.00", "$0.00012", ""]
    assert told.row("dear: prompt") == ["88", "$100.00", "$0.0088", ""]
    assert told.row("dear: prompt, cached by the endpoint") == ["32", "$50.00", "$0.0016", ""]
    assert told.row("dear: answers") == ["52", "$200.00", "$0.01", ""]
    again = 4 * (26 * 100 + 4 * 50 + 5 * 200) / 1e6
    assert told.row("Asked again, as the answer did not fit")[:3] == ["140", "", f"${again:.2f}"]
    assert told.row("These rows")[:3] == [f"{72 + 48 + 60 + 88 + 32 + 52 + 140}", "", f"${summary.spent:.2f}"]
    assert "12 rows asked of <bdi>cheap + dear</bdi>" in told.source
    assert told.row("1")[:2] == ["9", "75.0 %"]  # 9 of 12 rows have an agreement of 1
    assert told.row("0.5")[:2] == ["3", "25.0 %"]
    assert "agreement 50% · opinions: no | yes" in told.source


def test_how_sure_the_model_was_and_what_was_mended_is_told(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        number = int(seen.body["messages"][0]["content"].split()[-1])
        text = json.dumps({"label": "yes"})
        tokens = [{"token": text, "logprob": -0.1 * number}]
        body = json.loads(completion(f"```json\n{text}\n```" if number == 3 else text))
        body["choices"][0]["logprobs"] = {"content": tokens}
        return Canned(body=json.dumps(body).encode())

    with ChatServer(reply) as server:
        frame = pl.DataFrame({"prompt": [f"row {number}" for number in range(20)]})
        asked(tmp_path, server, frame, **{"answer.labels": ["yes", "no"], "answer.logprobs": True})
    told = Page(write_report(tmp_path / "out.csv"))
    assert told.row("fence")[0] == "1"
    assert "how likely the model found its answer" in told.source
    assert "confidence 90%" in told.source


def test_errors_are_told_by_kind_with_an_example(page: Path) -> None:
    told = Page(page)
    count, example = told.row("too_long")
    assert count == "12"
    assert "row 8 <b>too</b> long" in example
    assert [row[2] for row in told.rows if row[0] == "invalid" and "not JSON" in row[-1]]


def test_answers_are_held_against_gold(job: tuple[Path, Summary], page: Path) -> None:
    told, table = Page(page), pl.read_csv(job[0])
    with_gold = table.filter(pl.col("gold").is_not_null())
    right = with_gold.filter(pl.col("gold") == pl.col("label")).height
    assert f"{right} of {with_gold.height} rows that have gold" in told.source
    matrix = [row for row in told.rows if len(row) == len(LABELS) + 2 and row[0] in LABELS]
    assert [row[0] for row in matrix] == LABELS
    assert sum(int(cell) for row in matrix for cell in row[1:]) == with_gold.height
    assert sum(int(row[1 + place]) for place, row in enumerate(matrix)) == right
    assert told.row("positive")[0] == str(table.filter(pl.col("label") == "positive").height)


def test_a_column_that_cannot_be_gold_is_refused(job: tuple[Path, Summary], tmp_path: Path, server: ChatServer) -> None:
    with pytest.raises(BadJob, match="--gold glod: the input has no such column; did you mean 'gold'"):
        write_report(job[0], gold="glod")
    asked(tmp_path, server, pl.DataFrame({"prompt": ["a"]}))
    with pytest.raises(BadJob, match="its answers are free text"):
        write_report(tmp_path / "out.csv", gold="prompt")


def test_a_sample_of_rows_holds_some_of_each_status_and_is_the_same_each_time(
    job: tuple[Path, Summary], page: Path, tmp_path: Path
) -> None:
    found = [attributes for tag, attributes in Page(page).tags if tag == "details" and "data-status" in attributes]
    assert len(found) == SAMPLE_ROWS
    assert [each["data-status"] for each in found].count("failed") == 12
    again = write_report(job[0], tmp_path / "again.html", gold="gold")
    assert re.findall(r"row [\d,]+<", again.read_text("utf-8")) == re.findall(r"row [\d,]+<", page.read_text("utf-8"))


def test_room_in_the_sample_is_shared_by_the_statuses() -> None:
    wanted: dict[Status, int] = {"ok": 200, "failed": 3, "invalid": 150}
    assert _shared_out(wanted, 200) == {"failed": 3, "invalid": 98, "ok": 99}
    assert _shared_out({"ok": 7}, 200) == {"ok": 7}


def test_an_unknown_price_is_named_and_is_not_nothing(tmp_path: Path, server: ChatServer) -> None:
    asked(tmp_path, server, pl.DataFrame({"prompt": ["a", "b"]}))
    told = Page(write_report(tmp_path / "out.csv"))
    assert "No price is known of" in told.source
    assert told.row("These rows")[2] == told.row("Prompt")[2] == told.row("ok")[4] == "unknown"
    assert "$0" not in told.source.partition("<body>")[2]


def test_a_job_that_was_killed_is_told_as_far_as_it_is_known(job: tuple[Path, Summary], tmp_path: Path) -> None:
    copy = tmp_path / "out.csv.job"
    shutil.copytree(job[0].with_name("out.csv.job"), copy)
    lines = (copy / "history.jsonl").read_text("utf-8").splitlines(keepends=True)
    (copy / "history.jsonl").write_text(lines[0], "utf-8")
    told = Page(write_report(copy, tmp_path / "page.html"))
    assert "still running, or was cut short" in told.source
    assert told.row("all")[0] == "240"


def test_a_table_without_rows_and_one_that_failed_whole_have_a_page(tmp_path: Path) -> None:
    with ChatServer(lambda *_: Canned(400, problem("no", code="context_length_exceeded"))) as server:
        asked(tmp_path / "none", server, pl.DataFrame({"prompt": []}, schema={"prompt": pl.String}))
        asked(tmp_path / "all", server, pl.DataFrame({"prompt": ["a", "b"]}), **PRICES)
    assert "The input has no rows." in write_report(tmp_path / "none" / "out.csv").read_text("utf-8")
    assert Page(write_report(tmp_path / "all" / "out.csv")).row("failed")[:2] == ["2", "100.0 %"]


def test_what_draws_is_named_where_it_is_not_installed(
    job: tuple[Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.charts", raising=False)
    monkeypatch.delattr("pipeline.charts", raising=False)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(BadJob, match=r"pip install 'batch-prompt-pipeline\[report\]'"):
        write_report(job[0], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.csv", "page", "gone/page.html"])
def test_only_a_page_is_written_and_only_where_there_is_a_folder(
    job: tuple[Path, Summary], tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadJob, match=r"HTML page|cannot be written"):
        write_report(job[0], tmp_path / name)
    assert not list(tmp_path.iterdir())


# ---- what it holds


def test_nothing_is_fetched_and_nothing_else_may_run(page: Path) -> None:
    told = Page(page)
    names = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
    linked = [value for _, attributes in told.tags for name in names if (value := attributes.get(name))]
    assert {value for value in linked if not value.startswith("#")} == {"data:,"}
    assert "@import" not in told.source
    assert "url(" not in told.source
    policy = next(each["content"] for _, each in told.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not [name for _, attributes in told.tags for name in attributes if name.startswith("on") or name == "style"]


def test_what_rows_and_servers_say_is_text_and_harmless(page: Path) -> None:
    told = Page(page)
    assert [tag for tag, _ in told.tags].count("script") == 1
    assert not {"img", "b", "kind", "iframe"} & {tag for tag, _ in told.tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in told.source
    assert "Be &lt;kind&gt;." in told.source
    assert "{{ 7 * 7 }}" in told.source
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", told.source)


def test_headings_are_in_order_tables_have_heads_and_pictures_have_words(page: Path) -> None:
    told = Page(page)
    levels = [int(tag[1]) for tag, _ in told.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    tags = [tag for tag, _ in told.tags]
    assert tags.count("table") == tags.count("thead") == tags.count("caption")
    assert all(attributes.get("scope") for tag, attributes in told.tags if tag == "th")
    assert all(attributes.get("aria-label") for tag, attributes in told.tags if tag == "figure")
    assert tags.count("figure") == 5  # every answer has as many tokens: no picture of those


def test_a_page_of_the_longest_texts_stays_under_two_megabytes(tmp_path: Path) -> None:
    with ChatServer(lambda seen, _: Canned(body=completion('"<é' * 4_000 + seen.prompt[-9:]))) as server:
        texts = [f"{row} " + "<字'" * 3_000 for row in range(260)]
        asked(tmp_path, server, pl.DataFrame({"prompt": texts}), **{"prompt.system": "'" * 30_000})
    size = write_report(tmp_path / "out.csv").stat().st_size
    assert 500_000 < size < 2_000_000


@pytest.mark.parametrize(
    "text", ["", "short", "<" * 400, "字" * 5_000, "a" * 50 + "\N{PARTY POPPER}" * 5_000 + "z" * 50]
)
def test_a_text_is_clipped_in_its_middle(text: str) -> None:
    found = clipped(text, 600)
    if found != text:
        head, left_out, tail = re.split(r" \[…([\d,]+) characters…\] ", found)
        assert len(head) + len(tail) + int(left_out.replace(",", "")) == len(text)
        assert text.startswith(head)
        assert text.endswith(tail)
        assert 300 < len((head + tail).replace("<", "&lt;").encode()) <= 600
    else:
        assert len(text) <= 5


# ---- how it looks

OVERLAPPING = """
const found = [];
for (const chart of document.querySelectorAll("figure > svg")) {
  const edge = chart.getBoundingClientRect();
  const boxes = [...chart.querySelectorAll("text")].filter(text => text.textContent.trim())
    .map(text => [text.textContent, text.getBoundingClientRect()]);
  boxes.forEach(([one, a], at) => {
    if (a.left < edge.left - 8 || a.right > edge.right + 8 || a.bottom > edge.bottom + 2) found.push("outside: " + one);
    for (const [other, b] of boxes.slice(at + 1))
      if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
        found.push(one + " / " + other);
  });
}
return found;
"""
PALE = """
const channel = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = colour => colour.match(/[0-9.]+/g).map(Number);
const behind = element => {
  for (; element; element = element.parentElement) {
    const colour = numbers(getComputedStyle(element).backgroundColor);
    if (colour.length === 3 || colour[3] > 0) return colour;
  }
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = new Set();
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || ["SCRIPT", "STYLE", "OPTION"].includes(element.tagName)) continue;
  const style = getComputedStyle(element);
  const [one, other] = [numbers(element.closest("svg") ? style.fill : style.color), behind(element)].map(light);
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < 4.5) found.add(contrast.toFixed(2) + " " + element.textContent.slice(0, 40));
}
return [...found];
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if reason := missing():
        pytest.skip(reason)
    with browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_reads_well(page: Path, window: Browser, width: int, dark: bool) -> None:
    window.open(page, width=width, dark=dark)
    assert window.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    window.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert window.run("return document.documentElement.scrollWidth") <= width
    assert window.run(OVERLAPPING) == []
    assert window.run(PALE) == []
    assert window.complaints() == []


def test_rows_are_found_by_status_and_by_words(page: Path, window: Browser) -> None:
    window.open(page)
    visible = "return [...document.querySelectorAll('.rows details')].filter(row => !row.hidden).length"
    typed = "const field = document.querySelector('.filter %s'); field.value = '%s';"
    typed += "field.dispatchEvent(new Event('input', {bubbles: true}))"
    assert window.run(visible) == SAMPLE_ROWS
    window.run(typed % ("select", "failed"))
    assert window.run(visible) == 12
    window.run(typed % ("input", "no such words anywhere"))
    assert window.run(visible) == 0


def test_it_prints_as_ink_on_white_also_from_a_dark_screen(page: Path, window: Browser, tmp_path: Path) -> None:
    window.open(page, dark=True)
    window.print_to(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    window._command("Emulation.setEmulatedMedia", media="print")
    assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.run("return getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert window.run(PALE) == []
