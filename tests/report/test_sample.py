"""The sample has rows of every status, and the same rows each time."""

import re
from pathlib import Path

from report_pages import Page

from pipeline import Summary
from pipeline.records import Status
from pipeline.report.report import write_report
from pipeline.report.sample import SAMPLE_ROWS, fair_shares


def test_the_sample_has_rows_of_every_status_and_the_same_rows_each_time(
    job: tuple[Path, Summary], page: Path, tmp_path: Path
) -> None:
    found = [attributes for tag, attributes in Page(page).tags if tag == "details" and "data-status" in attributes]
    assert len(found) == SAMPLE_ROWS
    assert [each["data-status"] for each in found].count("failed") == 12
    again = write_report(job[0], tmp_path / "again.html")
    assert re.findall(r"row [\d,]+<", again.read_text("utf-8")) == re.findall(r"row [\d,]+<", page.read_text("utf-8"))


def test_the_sample_is_shared_fairly_by_the_statuses() -> None:
    wanted: dict[Status, int] = {"ok": 200, "failed": 3, "invalid": 150}
    assert fair_shares(wanted, 200) == {"failed": 3, "invalid": 98, "ok": 99}
    assert fair_shares({"ok": 7}, 200) == {"ok": 7}
