"""A job folder that somebody else made: what it says is shown and asked for, and not obeyed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer
from command_line import PIPELINE, asking, typed, typed_on_a_terminal
from stores import tamper

from pipeline.records import Exit
from pipeline.store.rows import checksum

LANE = {"base_url": "u", "model": "m", "api_key_env": ""}
KEY = {"SECRET_KEY": "sk-of-the-victim"}
Make = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "in.csv").write_text("q\none\ntwo\n")
    with chdir(tmp_path):
        yield tmp_path


def as_another(*words: str) -> None:
    """A command of a user with another home, as on another machine."""
    done = typed(*words, XDG_STATE_HOME=str(Path("their-state").absolute()), **KEY)
    assert done.returncode == 0, done.stderr


def rewritten(folder: Path, **fields: Any) -> None:
    """Change fields of the latest start in a history, whoever wrote it."""
    path = folder / "history.jsonl"
    *before, line = [each for each in path.read_text().splitlines() if '"began"' in each]
    path.write_text("\n".join([*before, json.dumps({**json.loads(line), **fields})]) + "\n")


def test_what_a_foreign_line_runs_imports_and_reaches_is_asked_for_and_not_done_before(
    here: Path, server: ChatServer
) -> None:
    ran, imported = here / "ran", here / "imported"
    (here / "evil.py").write_text(
        f"import pathlib, pydantic\npathlib.Path({str(imported)!r}).touch()\n"
        "class Answer(pydantic.BaseModel):\n    verdict: str\n"
    )
    (here / "job.toml").write_text(
        f'[endpoint]\nbase_url = "{server.url}"\nmodel = "m"\napi_key_env = "SECRET_KEY"\n'
        '[prompt]\ntemplate = "{{ q }}"\n[answer]\nschema = "evil:Answer"\n'
    )
    words = ["run", "in.csv", "-c", "job.toml", "-o", "out.csv", "--on-finish", f"touch {ran}"]
    typed(*words, XDG_STATE_HOME=str(here / "theirs"), **KEY)
    ran.unlink()
    imported.unlink()
    sys.modules.pop("evil")
    arrived = server.arrived
    with (here / "in.csv").open("a") as file:
        file.write("three\n")

    resumed = typed("resume", "out.csv", **KEY)
    assert resumed.returncode == 2
    assert server.arrived == arrived
    assert not ran.exists()
    assert not imported.exists()
    for named in (
        f"runs the command touch {ran}",
        "imports the Python code evil:Answer",
        f"sends the rows to {server.url}, with the key in SECRET_KEY",
        f"writes {here / 'out.csv'}",
        f"reads {here / 'in.csv'}",
        "add --yes",
    ):
        assert named in resumed.stderr
    assert typed("resume", "out.csv", "--yes", **KEY).returncode == 0
    assert server.arrived == arrived + 1
    assert ran.exists()
    assert imported.exists()
    # from then on the line is one's own
    assert "no mark of yours" not in typed("resume", "out.csv", **KEY).stderr


def test_a_line_is_not_ones_own_because_it_says_so(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    own = (here / "out.csv.job" / "history.jsonl").read_text()
    assert typed("resume", "out.csv").returncode == 0
    start = json.loads(own.splitlines()[0])
    ran = here / "ran"
    forgeries: list[dict[str, Any]] = [
        {"command": [*start["command"], "--on-finish", f"touch {ran}"]},  # the mark of the line as it was
        {"command": [*start["command"], "--on-finish", f"touch {ran}"], "mark": "0" * 64},
        {"mark": ""},
        {"is_own": True, "own": True, "mark": None},
    ]
    for forged in forgeries:
        (here / "out.csv.job" / "history.jsonl").write_text(own)
        rewritten(here / "out.csv.job", **forged)
        assert typed("resume", "out.csv").returncode == 2
    assert not ran.exists()


def test_on_a_terminal_a_foreign_line_is_asked_for_and_no_means_no(here: Path, server: ChatServer) -> None:
    as_another("run", "in.csv", "-o", "out.csv", *asking(server), "--limit", "1")
    rewritten(here / "out.csv.job", command=["run", "in.csv", "-o", "out.csv", *asking(server)])
    for answer, code, arrived in ((b"n\n", 2, 1), (b"y\n", 0, 2)):
        done = typed_on_a_terminal("resume", "out.csv", answer=answer)
        assert "Do you trust all of it, and run it?" in done.stderr
        assert (done.returncode, server.arrived) == (code, arrived), done.stderr


def test_a_foreign_line_is_shown_without_what_would_hide_a_part_of_it(here: Path, server: ChatServer) -> None:
    as_another("run", "in.csv", "-o", "out.csv", *asking(server))
    hidden = "true\r\x1b[2K\x1b]0;x\x07\u202e; touch ran"
    rewritten(here / "out.csv.job", command=["run", "in.csv", "-o", "out.csv", *asking(server), "--on-finish", hidden])
    told = typed("resume", "out.csv").stderr
    assert "touch ran" in told
    assert not {"\x1b", "\u202e", "\r"} & set(told)


def test_a_foreign_line_goes_on_in_the_folder_that_was_named_and_in_no_other(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "mine.csv", *asking(server))
    as_another("run", "in.csv", "-o", "out.csv", *asking(server))
    mine = (here / "mine.csv.job" / "history.jsonl").read_bytes()
    words = ["run", "in.csv", "-o", "out.csv", *asking(server), "--job-dir", "mine.csv.job"]
    rewritten(here / "out.csv.job", command=words)
    assert typed("resume", "out.csv", "--yes").returncode == 0
    assert (here / "mine.csv.job" / "history.jsonl").read_bytes() == mine


def test_a_folder_moved_by_oneself_is_ones_own_and_without_a_home_nothing_is(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    shutil.move(here / "out.csv.job", here / "kept")
    assert typed("resume", "kept").returncode == 0
    homeless = {"XDG_STATE_HOME": "/proc/nowhere"}
    told = typed("resume", "kept", **homeless)
    assert told.returncode == 2
    assert "XDG_STATE_HOME" in told.stderr
    assert typed("resume", "kept", "--yes", **homeless).returncode == 0
    assert typed("run", "in.csv", "-o", "out.csv", "--job-dir", "kept", *asking(server), **homeless).returncode == 0


def test_what_only_reads_runs_imports_and_sends_nothing_and_writes_nowhere_unasked(
    here: Path, server: ChatServer
) -> None:
    as_another("run", "in.csv", "-o", "out.csv", *asking(server))
    arrived = server.arrived
    victim = here / "accounts.csv"
    victim.write_text("precious\n")
    folder = here / "out.csv.job"
    start = json.loads((folder / "history.jsonl").read_text().splitlines()[0])
    imported, ran = here / "imported", here / "ran"
    (here / "evil.py").write_text(f"import pathlib\npathlib.Path({str(imported)!r}).touch()\n")
    start["settings"]["answer"]["schema"] = "evil:Answer"
    start["settings"]["endpoint"]["base_url"] = server.url
    words = [*start["command"], "--on-finish", f"touch {ran}"]
    rewritten(folder, output=str(victim), settings=start["settings"], command=words)
    for line in (
        ["show", str(folder)],
        ["export", str(folder)],
        ["status", str(folder)],
        ["history", str(folder)],
        ["report", str(folder)],
        ["score", str(folder), "--gold", "q"],
        ["compare", str(folder), str(folder)],
        ["tune", str(folder), "--max-cost", "9"],
        ["stop", str(folder)],
    ):
        done = subprocess.run([*PIPELINE, *line], capture_output=True, text=True, check=False, timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
    del start["settings"]["answer"]["schema"]
    rewritten(folder, output=str(victim), settings=start["settings"])
    for words in (["export", str(folder)], ["report", str(folder)]):
        done = typed(*words)
        assert done.returncode == 2
        assert "Name the file to write with -o" in done.stderr
    assert typed("export", str(folder), "-o", "mine.csv").returncode == 0
    assert not ran.exists()
    assert not imported.exists()
    assert server.arrived == arrived
    assert victim.read_text() == "precious\n"
    assert not list(here.glob("*.html"))


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
@pytest.mark.parametrize("name", ["history.jsonl", "log.txt", "lock", "summary.json", "store.json", "keys.parquet"])
def test_nothing_is_written_through_a_link_that_somebody_put_into_a_job_folder(
    here: Path, server: ChatServer, kind: str, name: str
) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    victim = here / "victim"
    victim.write_text("precious, without a line end")
    link = here / "out.csv.job" / name
    link.unlink()
    if kind == "symbolic":
        link.symlink_to(victim)
    else:
        os.link(victim, link)
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server))
    assert "Traceback" not in done.stderr
    assert victim.read_text() == "precious, without a line end"


def test_a_link_in_place_of_the_batches_loses_no_file_where_it_leads(here: Path, server: ChatServer) -> None:
    typed("run", "in.csv", "-o", "out.csv", *asking(server))
    (here / "letters").mkdir()
    (here / "letters" / "a").write_text("precious")
    (here / "out.csv.job" / "batches").symlink_to(here / "letters")
    with (here / "in.csv").open("a") as file:
        file.write("three\n")
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server), "--set", "run.how=batch")
    assert done.returncode == 1
    assert "is a link" in done.stderr
    assert (here / "letters" / "a").read_text() == "precious"


WILD_BATCHES = (
    {"sheets": [{"name": "../../victim", "model": "m"}]},
    {"sheets": [{"name": "a.jsonl", "model": "m", "reserved": -100.0}]},
    {"sheets": [], "form": 99},
)


@pytest.mark.parametrize(
    ("note", "value"),
    [
        ("ledger", {"cost": -100.0}),
        ("ledger", {"held": -100.0}),
        ("ledger", {"aside": -1e300}),
        ("learnt", [{"lane": LANE, "learnt": {"window": -9}, "at": "2026-11-29T00:00:00Z"}]),
        ("learnt", [{"lane": LANE, "learnt": {"requests_per_minute": -1.0}, "at": "2026-11-29T00:00:00Z"}]),
        ("learnt", [{"lane": LANE, "learnt": {}, "at": "2026-11-29T00:00:00"}]),
        *(("batches", value) for value in WILD_BATCHES),
    ],
)
def test_a_wild_note_is_made_anew_or_told_and_raises_no_cap(
    here: Path, server: ChatServer, note: str, value: object
) -> None:
    capped = ("--set", "prices.input=1000", "--set", "prices.output=1000", "--set", "parameters.max_tokens=10")
    paid = typed("run", "in.csv", "-o", "out.csv", *asking(server), *capped, "--limit", "1")
    spent = paid.stderr.partition(" this run")[0].rpartition("$")[2]
    content = json.dumps(value).encode()
    store = here / "out.csv.job" / "store"
    key = f"note:{note}"
    tamper(store, "DELETE FROM Cache WHERE key = ?", key)
    cells = (key, content, checksum(key.encode(), b"note", content))
    tamper(
        store,
        "INSERT INTO Cache (key, tag, value, access_count, raw, mode, store_time) VALUES (?, 'note', ?, ?, 1, 1, 0)",
        *cells,
    )
    done = typed("run", "in.csv", "-o", "out.csv", *asking(server), *capped, "--max-cost", spent)
    assert done.returncode == (1 if note == "batches" else Exit.AT_LIMIT), done.stderr
    assert ("is damaged" in done.stderr, "was damaged" in done.stderr) == (note == "batches", note == "ledger")
    assert server.arrived == 1
