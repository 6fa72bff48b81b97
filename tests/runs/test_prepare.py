"""A run is prepared: what cannot begin is refused before anything is sent, and a change is agreed to first."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from builders import command_line, counts, job, questions
from chat_server import ChatServer, answer_to

from pipeline import BadJob, Stopped, ThisRun, run
from pipeline.records import Exit
from pipeline.results.export import export_table
from pipeline.tables import write_table


def test_a_second_run_of_the_same_job_is_turned_away_and_told_by_whom(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.csv", range(50))
    with ChatServer(delay_seconds=0.2) as server:
        line = command_line(server.url, source, tmp_path / "out.csv", "--concurrency", "2")
        child = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        server.wait_for(3)
        with pytest.raises(Stopped, match=f"process {child.pid}") as caught:
            run(job(server.url, source, tmp_path / "out.csv"))
        child.kill()
        child.wait()
    assert caught.value.exit_code is Exit.LOCKED


def test_a_changed_prompt_is_told_with_its_price_before_everything_is_bought_again(tmp_path: Path) -> None:
    source, out = questions(tmp_path / "in.csv", range(50)), tmp_path / "out.csv"
    priced: dict[str, Any] = {"prices__input": 1.0, "prices__output": 1.0}
    with ChatServer() as server:
        run(job(server.url, source, out, **priced))
        changed = {**priced, "prompt__template": "Now answer {{ q }}"}
        with pytest.raises(
            BadJob, match=r"prompt\.template changed since .*0 of 50 stored answers can be used[\s\S]*about \$.*--yes"
        ):
            run(job(server.url, source, out, **changed))
        told: list[str] = []
        with pytest.raises(BadJob, match="answers are kept"):
            run(job(server.url, source, out, **changed), confirm=lambda question: bool(told.append(question)))
        assert "Ask 50 rows again, about $" in told[0]
        run(job(server.url, source, out, ThisRun(sample=4, verbosity=-1), **changed))
        assert server.arrived == 54
        with pytest.raises(
            BadJob, match="4 of 54 stored answers can be used"
        ):  # the pilot did not make the new prompt the old one
            run(job(server.url, source, out, **changed))
        assert counts(run(job(server.url, source, out, ThisRun(assume_yes=True, verbosity=-1), **changed))) == {
            "ok": 50
        }
        assert server.arrived == 100
        run(job(server.url, source, out, ThisRun(assume_yes=True, verbosity=-1), **priced))
        assert server.arrived == 100


def test_a_refused_run_leaves_what_is_known_of_the_last_one(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(30)), tmp_path / "out.csv"
    run(job(server.url, source, out))
    questions(source, range(40))
    with pytest.raises(BadJob, match="--yes"):
        run(job(server.url, source, out, prompt__template="Now answer {{ q }}"))
    path, tally = export_table(out, tmp_path / "known.parquet")
    assert tally.ok == 30
    assert pl.read_parquet(path)["answer"].to_list() == [answer_to(f"Answer question {n}") for n in range(30)]


def test_a_template_that_prints_something_else_each_time_is_stopped_before_it_is_paid_for(
    tmp_path: Path, server: ChatServer
) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    for template in ("{{ q.upper }}", "{{ q.split() | map('upper') }}"):
        with pytest.raises(BadJob, match="prints code instead of a value"):
            run(job(server.url, source, tmp_path / "out.csv", prompt__template=template))
    assert server.arrived == 0


def test_a_run_killed_while_it_plans_is_no_hindrance(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(3)), tmp_path / "out.csv"
    left = tmp_path / "out.csv.job" / "plan.new"
    left.mkdir(parents=True)
    (left.parent / "lock").touch()
    (left / ".keys.parquet.0123.tmp").write_bytes(b"half")
    assert counts(run(job(server.url, source, out))) == {"ok": 3}
    assert not left.exists()


def test_keys_that_are_not_those_of_the_last_run_are_never_exported(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(3)), tmp_path / "out.csv"
    run(job(server.url, source, out))
    keys = tmp_path / "out.csv.job" / "keys.parquet"
    pl.read_parquet(keys).reverse().write_parquet(keys)
    with pytest.raises(BadJob, match="was killed as it started"):
        export_table(out, tmp_path / "wrong.csv")
    assert not (tmp_path / "wrong.csv").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("ragged.csv", b"id,q\n1,a\n2,b,c\n", "ragged.csv:3"),
        ("latin.csv", "id,q\n1,caf\xe9\n".encode("latin-1"), "latin.csv:2"),
        ("twice.csv", b"q,q\n1,a\n", "same name"),
        ("clash.csv", b"q,answer\n1,a\n", r"\[output\]\nprefix"),
        ("empty.csv", b"", "empty"),
        ("strange.doc", b"q\n1\n", "ending"),
        ("other.csv", b"id,text\n1,a\n", "no column 'q'"),
    ],
)
def test_an_input_that_cannot_be_used_is_refused_before_anything_is_sent(
    tmp_path: Path, server: ChatServer, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadJob, match=words):
        run(job(server.url, tmp_path / name, tmp_path / "out.csv"))
    assert server.arrived == 0
    assert not (tmp_path / "out.csv").exists()
    assert not (tmp_path / "out.csv.job").exists()


def test_an_output_that_could_not_be_written_is_refused_before_anything_is_sent(
    tmp_path: Path, server: ChatServer
) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    for output, words in (
        (source, "also an input"),
        (tmp_path / "no" / "out.csv", "no folder"),
        (tmp_path, "is a folder"),
        (tmp_path / "out.doc", "ending"),
        (Path("/proc/out.csv"), "cannot be written"),
    ):
        with pytest.raises(BadJob, match=words):
            run(job(server.url, source, output))
    assert server.arrived == 0


def test_a_cap_without_a_price_or_a_bound_is_refused_before_anything_is_sent(
    tmp_path: Path, server: ChatServer
) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    with pytest.raises(BadJob, match="no price is known"):
        run(job(server.url, source, tmp_path / "out.csv", limits__max_cost=1.0))
    with pytest.raises(BadJob, match="nothing bounds the length"):
        run(job(server.url, source, tmp_path / "out.csv", limits__max_cost=1.0, prices__input=1.0, prices__output=1.0))
    assert server.arrived == 0


def test_what_a_killed_run_left_half_written_is_swept_away(tmp_path: Path, server: ChatServer) -> None:
    source, out = questions(tmp_path / "in.csv", range(3)), tmp_path / "out.csv"
    run(job(server.url, source, out))
    writing = "from pipeline.files import new_draft\nwith new_draft(Path(sys.argv[1])): os._exit(9)"
    for path in (out, tmp_path / "out.csv.job" / "input-1.parquet", tmp_path / "other.csv"):
        subprocess.run(
            [sys.executable, "-c", f"import os, sys\nfrom pathlib import Path\n{writing}", path], check=False
        )
    assert len(list(tmp_path.rglob(".*.tmp"))) == 3
    run(job(server.url, source, out))
    assert [path.name[:11] for path in tmp_path.rglob(".*.tmp")] == [".other.csv."]


@pytest.mark.parametrize("other", ["the same", "a long name that begins alike", "a long name in another script"])
def test_a_job_that_begins_while_another_writes_its_output_takes_nothing_from_it(
    tmp_path: Path, server: ChatServer, other: str
) -> None:
    source = questions(tmp_path / "in.csv", range(3))
    out, second = tmp_path / "out.csv", tmp_path / "out.csv"
    if other != "the same":
        letter = "x" * 120 if "alike" in other else "写" * 82
        out, second = tmp_path / f"{letter}1.csv", tmp_path / f"{letter}2.csv"
    frame = pl.DataFrame({"of": ["the first"] * 5})

    def frames() -> Iterator[pl.DataFrame]:
        yield frame
        this_run = ThisRun(job_dir=tmp_path / "second.job", verbosity=-1)
        assert run(job(server.url, source, second, this_run=this_run)).exit_code == 0
        assert pl.read_csv(second)["q"].to_list() == ["question 0", "question 1", "question 2"]
        yield frame

    write_table(frames(), frame.schema, out, {})
    assert pl.read_csv(out)["of"].to_list() == ["the first"] * 10
    assert list(tmp_path.rglob(".*.tmp")) == []
