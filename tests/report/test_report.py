"""A job's page shows the figures of its summary, holds everything it needs, and is readable on any screen and paper."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from browser import Browser, browser, missing
from chat_server import Canned, ChatServer, Seen, completion, problem
from report_pages import HOSTILE, PRICES, Page, run_into

from pipeline import BadJob, Summary
from pipeline.report.report import write_report
from pipeline.report.sample import SAMPLE_ROWS


def test_its_figures_are_those_of_the_summary(job: tuple[Path, Summary], page: Path) -> None:
    read, rows = Page(page), job[1].rows
    for status in ("ok", "invalid", "failed"):
        assert read.row(status)[0] == f"{getattr(rows, status):,}", status
    assert read.row("all")[0] == "240"
    assert read.row("all")[2:4] == [f"{rows.usage.prompt_tokens:,}", f"{rows.usage.billed_output_tokens:,}"]
    assert read.row("These rows")[0] == f"{job[1].run.tokens:,}"  # asked again, and not shown, among them
    repeated = sum(1 for row in range(240) if row % 40 == 0 and row % len(HOSTILE) == 0) - 1
    assert f"{repeated} rows are equal to an earlier one" in read.source


def test_errors_are_listed_by_kind_with_examples(page: Path) -> None:
    read = Page(page)
    count, example = read.row("too_long")
    assert count == "12"
    assert "row 8 <b>too</b> long" in example
    assert [row[2] for row in read.rows if row[0] == "invalid" and "not JSON" in row[-1]]


def test_the_command_scores_gold_and_adds_it_to_the_page(job: tuple[Path, Summary], tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pipeline", "report", str(job[0]), "-o", str(tmp_path / "page.html"), "--gold"]
    done = subprocess.run([*line, "gold", "--answer", "label"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split(":")[0]) == (0, f"Wrote {tmp_path / 'page.html'}")
    assert Page(tmp_path / "page.html").row("Accuracy")
    refused = subprocess.run([*line, "glod"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "--gold glod: the input has no such column; did you mean 'gold'?" in refused.stderr


def test_a_killed_job_is_shown_with_the_rows_answered_so_far(job: tuple[Path, Summary], tmp_path: Path) -> None:
    copy = tmp_path / "out.csv.job"
    shutil.copytree(job[0].with_name("out.csv.job"), copy)
    lines = (copy / "history.jsonl").read_text("utf-8").splitlines(keepends=True)
    (copy / "history.jsonl").write_text(lines[0], "utf-8")
    read = Page(write_report(copy, tmp_path / "page.html"))
    assert "it is still running, or it was killed" in read.source
    assert read.row("all")[0] == "240"


def test_a_table_without_rows_and_one_without_answers_have_a_page(tmp_path: Path) -> None:
    with ChatServer(lambda *_: Canned(400, problem("no", code="context_length_exceeded"))) as server:
        run_into(tmp_path / "none", server, pl.DataFrame({"prompt": []}, schema={"prompt": pl.String}))
        run_into(tmp_path / "all", server, pl.DataFrame({"prompt": ["a", "b"]}), **PRICES)
    assert "The input has no rows." in write_report(tmp_path / "none" / "out.csv").read_text("utf-8")
    assert Page(write_report(tmp_path / "all" / "out.csv")).row("failed")[:2] == ["2", "100.0 %"]


def test_several_models_that_answered_are_listed(job: tuple[Path, Summary], page: Path, tmp_path: Path) -> None:
    assert "Answered by" not in page.read_text()

    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(body=completion("yes", model="<b>terra" if seen.prompt.endswith("2") else "luna"))

    with ChatServer(reply) as server:
        run_into(tmp_path, server, pl.DataFrame({"text": ["1", "2", "3"]}), **{"prompt.template": "{{ text }}"})
    source = write_report(tmp_path / "out.csv").read_text()
    assert "luna (2 answers), &lt;b&gt;terra (1 answer)" in source


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    job: tuple[Path, Summary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.report.charts", raising=False)
    monkeypatch.delattr("pipeline.report.charts", raising=False)
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(BadJob, match=r"pip install 'batch-prompt-pipeline\[report\]'"):
        write_report(job[0], tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out.csv", "page", "gone/page.html"])
def test_only_an_html_file_in_an_existing_folder_is_written(
    job: tuple[Path, Summary], tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadJob, match=r"HTML page|cannot be written"):
        write_report(job[0], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_nothing_is_loaded_and_no_other_script_may_run(page: Path) -> None:
    read = Page(page)
    names = ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
    linked = [value for _, attributes in read.tags for name in names if (value := attributes.get(name))]
    assert {value for value in linked if not value.startswith("#")} == {"data:,"}
    assert "@import" not in read.source
    assert "url(" not in read.source
    policy = next(each["content"] for _, each in read.tags if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on") or name == "style"]


def test_texts_of_rows_and_servers_are_escaped(page: Path) -> None:
    read = Page(page)
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert not {"img", "b", "kind", "iframe"} & {tag for tag, _ in read.tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in read.source
    assert "Be &lt;kind&gt;." in read.source
    assert "{{ 7 * 7 }}" in read.source
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", read.source)


def test_headings_are_in_order_tables_have_heads_and_charts_have_labels(page: Path) -> None:
    read = Page(page)
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    tags = [tag for tag, _ in read.tags]
    assert tags.count("table") == tags.count("thead") == tags.count("caption")
    assert all(attributes.get("scope") for tag, attributes in read.tags if tag == "th")
    assert all(attributes.get("aria-label") for tag, attributes in read.tags if tag == "figure")
    assert tags.count("figure") == 5  # every answer has as many tokens: no chart of those


def test_a_page_of_the_longest_texts_stays_under_two_megabytes(tmp_path: Path) -> None:
    with ChatServer(lambda seen, _: Canned(body=completion('"<é' * 4_000 + seen.prompt[-9:]))) as server:
        texts = [f"{row} " + "<字'" * 3_000 for row in range(260)]
        run_into(tmp_path, server, pl.DataFrame({"prompt": texts}), **{"prompt.system": "'" * 30_000})
    size = write_report(tmp_path / "out.csv").stat().st_size
    assert 500_000 < size < 2_000_000


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
def test_it_is_readable_at_every_width_in_light_and_dark(page: Path, window: Browser, width: int, dark: bool) -> None:
    window.open(page, width=width, dark=dark)
    assert window.run("return matchMedia('(prefers-color-scheme: dark)').matches") is dark
    window.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert window.run("return document.documentElement.scrollWidth") <= width
    assert window.run(OVERLAPPING) == []
    assert window.run(PALE) == []
    assert window.console_messages() == []


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


def test_it_prints_black_on_white_also_from_a_dark_screen(page: Path, window: Browser, tmp_path: Path) -> None:
    window.open(page, dark=True)
    window.print_to(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    window._command("Emulation.setEmulatedMedia", media="print")
    assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert window.run("return getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert window.run(PALE) == []
