"""A store whose ledger or other pages are damaged or lost: told once, and every later run ends by its rows."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import builders
import msgspec
import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, answer_to, problem
from command_line import typed

from pipeline.records import Exit, Tally
from pipeline.store.notes import read_ledger
from pipeline.store.reader import Reader
from pipeline.store.rows import Entry, cells_of_entry, upsert_sql

ROWS, PAGE = 40, 4096
OLD = Tally(ok=2, cost=20.0, in_outcomes=18.0, attempts=2)
TOLD = "No answer is lost by this"


class Finished(NamedTuple):
    folder: Path
    line: list[str]
    spent: float


@pytest.fixture(scope="module")
def server() -> Any:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return Canned(413, problem("too long")) if seen.prompt.endswith("7") else None

    with ChatServer(reply) as server:
        yield server


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, server: ChatServer) -> Finished:
    """A job whose rows are done, some of them failed: exit code 3."""
    folder = tmp_path_factory.mktemp("finished")
    builders.questions(folder / "in.csv", range(ROWS))
    line = builders.command_line(server.url, folder / "in.csv", folder / "out.csv")[len(builders.PIPELINE) :]
    line += ["--set", "prices.input=1e6", "--set", "prices.output=1e6", "--set", "parameters.max_tokens=10"]
    assert typed(*line).returncode == Exit.INCOMPLETE
    return Finished(folder, line, ledger_of(folder / "out.csv.job").cost)


@pytest.fixture
def job(tmp_path: Path, finished: Finished) -> Path:
    return Path(shutil.copytree(finished.folder / "out.csv.job", tmp_path / "job"))


def ledger_of(job: Path) -> Tally:
    with closing(Reader(job / "store")) as reader:
        return read_ledger(reader)


def sql(job: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(job / "store" / "cache.db", isolation_level=None)) as database:
        database.execute(statement, values)


def note(job: Path, name: str, value: bytes) -> None:
    sql(job, upsert_sql(1), *cells_of_entry(Entry(f"note:{name}", "note", value)))


def lose_what_else_tells(job: Path) -> None:
    """Without the sidecar and the ends of runs, only the outcomes tell what was spent."""
    (job / "store.json").unlink()
    history = job / "history.jsonl"
    lines = [line for line in history.read_bytes().splitlines(keepends=True) if b'"ended"' not in line[:20]]
    history.write_bytes(b"".join(lines))


def flip(job: Path, page: int, chance: random.Random) -> None:
    """Turn over a byte of a page, or the whole of it."""
    path = job / "store" / "cache.db"
    content = bytearray(path.read_bytes())
    places = [page * PAGE + chance.randrange(PAGE)] if chance.random() < 0.5 else range(page * PAGE, (page + 1) * PAGE)
    for place in places:
        content[place] ^= 0xFF
    path.write_bytes(content)


def zero(job: Path, page: int, _chance: random.Random) -> None:
    with (job / "store" / "cache.db").open("r+b") as file:
        file.seek(page * PAGE)
        file.write(bytes(PAGE))


def rerun(finished: Finished, job: Path, *more: str) -> Any:
    output = job.parent / "out.csv"
    return typed(
        *[str(output) if word.endswith("out.csv") else word for word in finished.line], "--job-dir", str(job), *more
    )


def check_ends_by_its_rows(finished: Finished, job: Path, spent: float) -> None:
    """The next run, and the one after it, send nothing, tell nothing and end as their rows say."""
    again = rerun(finished, job)
    assert again.returncode == Exit.INCOMPLETE, again.stderr
    assert TOLD not in again.stderr
    assert "damaged" not in again.stderr
    assert ledger_of(job).cost == pytest.approx(spent)
    out = pl.read_csv(job.parent / "out.csv")
    wanted = [None if n % 10 == 7 else answer_to(f"Answer question {n}") for n in range(ROWS)]
    assert out["answer"].to_list() == wanted


DAMAGE: dict[str, Callable[[Path], None]] = {
    "lost": lambda job: sql(job, "DELETE FROM Cache WHERE key = 'note:ledger'"),
    "all notes lost": lambda job: sql(job, "DELETE FROM Cache WHERE key LIKE 'note:%' AND key <> 'note:identity'"),
    "no JSON": lambda job: note(job, "ledger", b"{"),
    "no text": lambda job: note(job, "ledger", b"\xff\x00"),
    "wrong types": lambda job: note(job, "ledger", b'{"cost":"much","held":[]}'),
    "below zero": lambda job: note(job, "ledger", msgspec.json.encode(Tally(cost=-5.0, held=-1e9))),
    "more digits than a number has": lambda job: note(job, "ledger", b'{"cost":1%b}' % (b"0" * 400)),
    "beyond all numbers": lambda job: note(job, "ledger", b'{"cost":1e999}'),
    "bytes": lambda job: sql(job, "UPDATE Cache SET value = x'00ff' WHERE key = 'note:ledger'"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("alone", [False, True], ids=["with a copy", "alone"])
def test_a_ledger_that_is_lost_or_damaged_is_made_anew_and_later_runs_end_by_their_rows(
    finished: Finished, server: ChatServer, job: Path, damage: str, alone: bool
) -> None:
    if alone:
        lose_what_else_tells(job)
    DAMAGE[damage](job)
    sent = server.arrived
    mended = rerun(finished, job, "--yes")
    assert mended.returncode == Exit.INCOMPLETE, mended.stderr
    assert (TOLD in mended.stderr) or ("Yes, by --yes." in mended.stderr)
    check_ends_by_its_rows(finished, job, finished.spent)
    assert server.arrived == sent


def test_an_old_ledger_is_brought_up_to_what_the_answers_and_its_own_other_attempts_cost(
    finished: Finished, job: Path
) -> None:
    lose_what_else_tells(job)
    note(job, "ledger", msgspec.json.encode(OLD))
    mended = rerun(finished, job)
    assert mended.returncode == Exit.INCOMPLETE
    assert "was old: it knew of $20.00" in mended.stderr
    check_ends_by_its_rows(finished, job, finished.spent + 2.0)


def test_money_that_only_the_ledger_knows_of_stays_spent_though_nothing_else_in_it_makes_sense(
    finished: Finished, job: Path
) -> None:
    note(job, "ledger", b'{"cost":9999.0,"held":7,"answers":3,"usage":{"prompt_tokens":4},"seconds":"many"}')
    assert rerun(finished, job).returncode == Exit.INCOMPLETE
    check_ends_by_its_rows(finished, job, 9999.0)
    assert ledger_of(job).held == 7


def test_answers_that_are_lost_are_told_once_and_asked_again_and_what_they_cost_stays_spent(
    finished: Finished, server: ChatServer, job: Path
) -> None:
    sql(job, "DELETE FROM Cache WHERE rowid IN (SELECT rowid FROM Cache WHERE tag = 'ok' ORDER BY rowid LIMIT 6)")
    sent = server.arrived
    refused = rerun(finished, job)
    assert refused.returncode == Exit.NEEDS_PERSON
    assert "To continue with these, add --yes. Nothing was sent." in refused.stderr
    again = rerun(finished, job, "--yes")
    assert again.returncode == Exit.INCOMPLETE
    assert f"{ROWS - 6} of {ROWS} or more answers" in again.stderr
    assert server.arrived == sent + 6
    check_ends_by_its_rows(finished, job, finished.spent * (ROWS - 4 + 6) / (ROWS - 4))


def test_under_a_cap_what_a_damaged_store_cost_counts_as_spent(
    finished: Finished, server: ChatServer, job: Path
) -> None:
    lose_what_else_tells(job)
    sql(job, "DELETE FROM Cache WHERE key = 'note:ledger'")
    builders.questions(job.parent / "in.csv", range(ROWS + 5))
    sent = server.arrived
    words = [str(job.parent / "in.csv") if word.endswith("in.csv") else word for word in finished.line]
    capped = rerun(finished._replace(line=words), job, "--max-cost", str(finished.spent + 1))
    assert capped.returncode == Exit.AT_LIMIT
    assert server.arrived == sent


@pytest.mark.parametrize("strike", [flip, zero])
def test_whichever_page_is_spoiled_the_next_run_ends_by_its_rows_or_says_what_is_lost(
    finished: Finished, server: ChatServer, tmp_path: Path, strike: Callable[[Path, int, random.Random], None]
) -> None:
    chance, whole = random.Random(11), finished.folder / "out.csv.job"
    pages = (whole / "store" / "cache.db").stat().st_size // PAGE
    for page in chance.sample(range(pages), min(pages, 8)):
        job = Path(shutil.copytree(whole, tmp_path / f"{page}" / "job"))
        strike(job, page, chance)
        first = rerun(finished, job, "--yes")
        if first.returncode == Exit.NEEDS_PERSON:
            assert "start over and pay for every answer again" in first.stderr
            assert rerun(finished, job, "--yes").stderr == first.stderr
        else:
            sent = server.arrived
            check_ends_by_its_rows(finished, job, ledger_of(job).cost)
            assert server.arrived == sent
            assert ledger_of(job).cost >= finished.spent * (1 - 1e-9)


def lose_a_free_page(job: Path) -> None:
    note(job, "large", bytes(20 * PAGE))
    sql(job, "DELETE FROM Cache WHERE key = 'note:large'")
    head = (job / "store" / "cache.db").read_bytes()[:PAGE]
    trunk = int.from_bytes(head[32:36])
    assert trunk
    zero(job, trunk - 1, random.Random())


def cut(share: float) -> Callable[[Path], None]:
    path = Path("store", "cache.db")
    return lambda job: (job / path).write_bytes((job / path).read_bytes()[: int((job / path).stat().st_size * share)])


@pytest.mark.parametrize(
    ("strike", "code"),
    [
        (lose_a_free_page, Exit.INCOMPLETE),
        (cut(0.95), Exit.INCOMPLETE),
        (cut(0.0), Exit.NEEDS_PERSON),
        (lambda job: (job / "store" / "cache.db").unlink(), Exit.NEEDS_PERSON),
    ],
    ids=["a free page", "cut", "empty", "gone"],
)
def test_a_store_that_is_cut_or_gone_is_continued_or_told(
    finished: Finished, job: Path, strike: Callable[[Path], None], code: Exit
) -> None:
    strike(job)
    first = rerun(finished, job, "--yes")
    assert first.returncode == code, first.stderr
    if code == Exit.INCOMPLETE:
        check_ends_by_its_rows(finished, job, ledger_of(job).cost)
        assert ledger_of(job).cost >= finished.spent * (1 - 1e-9)
    else:
        assert "start over and pay for every answer again" in first.stderr
