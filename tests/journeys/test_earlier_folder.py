"""A job folder that an earlier version left is gone on with: nothing in it is asked again.

`earlier_folder/` was made by version 0.1.0 with `make_earlier_folder.py`, from the code before it was laid out in
packages; do not make it anew to get a test green. Each of its folders is a job: `labels` is finished, with rows of
every status; `opinions` has two samples a row; `stopped` was stopped by `max_cost`, with a failure that passes; `batch`
has open batches, which `provider.json` holds as the provider does. A job folder is kept there as `OUTPUT.folder`, as
git ignores `*.job`.
"""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from batch_server import Provider, serving
from chat_server import Canned, ChatServer, Seen, answer_to, problem
from click.testing import CliRunner, Result
from polars.testing import assert_frame_equal

from pipeline import Job, ThisRun, run
from pipeline.cli.group import main

EARLIER = Path(__file__).with_name("earlier_folder")
HOME = "/srv"  # where its runs were started
URL = "http://127.0.0.1:18765/v1"
JOBS = {
    # its input, its output, and what the same line exits with
    "labels": ("in.csv", "labels.csv", 3),
    "opinions": ("in.ndjson", "opinions.parquet", 0),
    "stopped": ("in.tsv", "stopped.csv", 4),
    "batch": ("in.csv", "batch.csv", 0),
}
EVERY_JOB = pytest.mark.parametrize("name", ["labels", "opinions", "stopped"])
GOLDEN_KEYS = {
    "labels": [
        "68feb0af69078c9c0f2f294ca53e64635b09abe85ecf2e956b33cdd467f1d81d",
        "c850e9b45e1b9c3eda43969d50371c06fb70f5658a4d519c00e05ec80abd1855",
        "7e9799ed3843e0d4e210108fe9555fd3f288507bb1744a0eed8a0f98740f6618",
    ],
    "opinions": [
        "eca69f773788d6a3ed4dc90cffd29e35cbe6172b4c5b34c4c9c5922a35704ee0",
        "456f3d5fa4a13d3f495ed68c05cdf9539c43c2453f0b23035f825fb6d9b8e8cf",
        "ce697a33d5b559619ce560fcd9ba780342990a57119413efb6ac06ede57c3e04",
    ],
    "stopped": [
        "3c6377f28c9f9de41120fbe46103476c32c8e16ba00b0a0bc25345de1214d21e",
        "99f364c323b6f1130fc2c0a86a7019b1575eeef752d5ceae62a5ef3bb3f9552e",
        "32ee1d3f3b6626a2000b4fa0efe18ffd1047e6fb844ee65a5f97ebdc8321d411",
    ],
}


@pytest.fixture
def unasked() -> Iterator[ChatServer]:
    """A server that is to receive nothing at all."""
    with ChatServer() as server:
        yield server
        assert server.arrived == 0


def copied(name: str, to: Path) -> Path:
    """A copy of a job, in a folder of its name."""
    folder = to / name
    shutil.copytree(EARLIER / name, folder)
    output = JOBS[name][1]
    (folder / f"{output}.folder").rename(folder / f"{output}.job")
    return folder


def moved(folder: Path, url: str) -> None:
    """Make the history say that the runs were started in this folder, with this address."""
    path = folder / f"{JOBS[folder.name][1]}.job" / "history.jsonl"
    text = path.read_text("utf-8")
    assert f'"directory":"{HOME}"' in text
    text = text.replace(f'"{HOME}/', f'"{folder}/').replace(f'"{HOME}"', f'"{folder}"')
    path.write_text(text.replace(URL, url), "utf-8")


def typed(folder: Path, *words: str, exit_code: int = 0) -> Result:
    """A command, typed in this folder; in this process, as to start Python and polars takes a second."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(main, words, catch_exceptions=False, prog_name="pipeline")
    assert done.exit_code == exit_code, done.stderr
    return done


def line(name: str, url: str, *more: str) -> list[str]:
    source, output, _ = JOBS[name]
    return ["run", source, "-c", "job.toml", "--base-url", url, "-o", output, *more]


def table(path: Path) -> pl.DataFrame:
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path, infer_schema_length=None)
    return frame.with_columns(without_our_words("error"))


def without_our_words(column: str) -> pl.Expr:
    """Why a row cannot be asked is said in this program's own words, which a later version may improve."""
    return pl.col(column).cast(pl.String).str.replace(r"(the template prints a null).*", "$1")


def check_same_table(folder: Path) -> None:
    """The output is column by column that of the earlier version."""
    output = JOBS[folder.name][1]
    assert_frame_equal(table(folder / output), table(EARLIER / folder.name / output), check_column_order=True)


def spent(folder: Path) -> float:
    standing = json.loads(typed(folder, "status", JOBS[folder.name][1], "--json").stdout)
    assert isinstance(standing["spent"], float)
    return standing["spent"]


def asked(server: ChatServer) -> list[str]:
    """The last line of each request's first question, in order of the alphabet."""
    return sorted(
        next(message["content"] for message in seen.body["messages"] if message["role"] == "user").splitlines()[-1]
        for seen in server.log
    )


@EVERY_JOB
def test_the_same_line_sends_nothing_and_writes_the_same_table(tmp_path: Path, name: str, unasked: ChatServer) -> None:
    folder = copied(name, tmp_path)
    before = spent(folder)
    (folder / JOBS[name][1]).unlink()
    command = [sys.executable, "-m", "pipeline", *line(name, unasked.url)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == JOBS[name][2], done.stderr
    check_same_table(folder)
    assert spent(folder) == pytest.approx(before)


@EVERY_JOB
def test_resume_sends_nothing_and_writes_the_same_table(tmp_path: Path, name: str, unasked: ChatServer) -> None:
    folder = copied(name, tmp_path)
    moved(folder, unasked.url)
    (folder / JOBS[name][1]).unlink()
    asked = typed(tmp_path, "resume", f"{name}/{JOBS[name][1]}", exit_code=2)
    assert "(its history says: mia@laptop)" in asked.stderr  # its lines have no mark yet
    typed(tmp_path, "resume", f"{name}/{JOBS[name][1]}", "--yes", exit_code=JOBS[name][2])
    check_same_table(folder)


@EVERY_JOB
def test_rows_have_the_keys_that_they_had(tmp_path: Path, name: str, unasked: ChatServer) -> None:
    folder = copied(name, tmp_path)
    source, output, exit_code = JOBS[name]
    keys = folder / f"{output}.job" / "keys.parquet"
    before = pl.read_parquet(keys)
    keys.unlink()  # so that they are computed, and not taken from there
    job = Job.load(
        [folder / source],
        folder / output,
        config=folder / "job.toml",
        settings={"endpoint.base_url": unasked.url},
        this_run=ThisRun(verbosity=-1),
    )
    assert run(job).exit_code == exit_code
    words = without_our_words("error")
    after = pl.read_parquet(keys).with_columns(words)
    longer = pl.col("bytes") + len(',"stream":false')  # which requests did not say
    assert_frame_equal(after, before.with_columns(words, longer))
    assert [key.hex() for key in before["key"].head(3)] == GOLDEN_KEYS[name]


def test_what_only_reads_reads_it_where_it_lies(tmp_path: Path) -> None:
    folder = copied("labels", tmp_path)
    standing = json.loads(typed(folder, "status", "labels.csv", "--json").stdout)
    counts = {"ok": 32, "truncated": 2, "filtered": 2, "refused": 1, "invalid": 1, "failed": 2, "pending": 0}
    assert (standing["state"], standing["exit_code"], standing["rows"]) == ("finished", 3, counts)
    assert standing["by"]["user"] == "mia"
    assert standing["spent"] == pytest.approx(0.001956)
    runs = json.loads(typed(folder, "history", "labels.csv", "--json").stdout)
    assert [(each["by"]["host"], each["asked"], each["exit_code"]) for each in runs] == [
        ("laptop", 18, 3),
        ("laptop", 2, 3),
        ("laptop", 20, 3),
    ]
    assert runs[1]["changed"] == {"--retry": [None, "failed"]}
    assert "mia@laptop" in typed(folder, "history", "labels.csv").stdout
    shown = typed(folder, "show", "labels.csv.job", "--status", "invalid").stdout
    assert "row 15" in shown
    assert '"meh" is not one of "good", "bad" or "mixed"' in shown
    typed(folder, "export", "labels.csv", "-o", "again.csv")
    assert_frame_equal(table(folder / "again.csv"), table(EARLIER / "labels" / "labels.csv"))
    scored = json.loads(typed(folder, "score", "labels.csv", "--gold", "gold", "--json").stdout)
    assert (scored["rows"], scored["score"]["accuracy"]["count"]) == (40, 23)
    compared = json.loads(typed(folder, "compare", "labels.csv", "labels.csv", "--json").stdout)
    assert (compared["matched"], compared["agreement"]["count"]) == (40, 33)
    assert "0 to ask, 39 answered before" in typed(folder, "estimate", *line("labels", URL)[1:]).stdout


@EVERY_JOB
def test_every_job_is_told_and_exported(tmp_path: Path, name: str) -> None:
    folder = copied(name, tmp_path)
    output = JOBS[name][1]
    for command in ("status", "history", "show"):
        assert typed(folder, command, output).stdout
    typed(folder, "export", output, "-o", f"again{Path(output).suffix}")
    assert_frame_equal(table(folder / f"again{Path(output).suffix}"), table(EARLIER / name / output))


def test_a_new_row_and_a_changed_one_are_all_that_is_sent(tmp_path: Path, server: ChatServer) -> None:
    folder = copied("labels", tmp_path)
    source = folder / "in.csv"
    text = source.read_text("utf-8").replace("Order 3: as described.", "Order 3: late.")
    source.write_text(f"{text}040,Order 16: as described.,good\n041,No comment.,good\n", "utf-8")
    typed(folder, *line("labels", server.url), exit_code=3)
    assert asked(server) == ["Order 16: as described.", "Order 3: late."]
    assert table(folder / "labels.csv")["status"].to_list()[-2:] == ["ok", "invalid"]


def test_a_changed_prompt_is_paid_for_only_with_yes_and_the_old_answers_stay(
    tmp_path: Path, server: ChatServer
) -> None:
    folder = copied("labels", tmp_path)
    changed = line("labels", server.url, "--system", "You label reviews with care.")
    refused = typed(folder, *changed, exit_code=2)
    assert "prompt.system" in refused.stderr
    assert "--yes" in refused.stderr
    assert server.arrived == 0
    typed(folder, *changed, "--yes", exit_code=3)
    assert server.arrived == 38  # of 40 rows, one equals another and one cannot be asked
    typed(folder, *line("labels", server.url), "--yes", exit_code=3)
    assert server.arrived == 38
    check_same_table(folder)


def test_retry_sends_just_what_it_names_with_all_that_was_said_before(tmp_path: Path, server: ChatServer) -> None:
    folder = copied("labels", tmp_path)
    typed(folder, *line("labels", server.url), "--retry", "failed", exit_code=3)
    assert asked(server) == ["Very long story, part one."]
    typed(folder, *line("labels", server.url), "--retry", "invalid,truncated,filtered,refused", exit_code=3)
    again = {asked_of.body["messages"][1]["content"].splitlines()[-1]: asked_of.body for asked_of in server.log[1:]}
    assert sorted(again) == [
        "And so on, and so on, and so on.",
        "Arrived with a scratch; works.",
        "I will find out where you live.",
        "No comment.",
        "What is this even for?",
        "You will all pay for this.",
    ]
    assert server.arrived == 7
    assert [message["role"] for message in again["No comment."]["messages"]] == [
        "system",
        "user",
        *["assistant", "user"] * 2,
    ]
    assert again["And so on, and so on, and so on."]["max_tokens"] == 160
    assert table(folder / "labels.csv")["status"].value_counts(sort=True).rows() == [("ok", 39), ("failed", 1)]


def test_one_more_repair_goes_on_from_the_last_answer(tmp_path: Path, server: ChatServer) -> None:
    folder = copied("labels", tmp_path)
    typed(folder, *line("labels", server.url, "--set", "answer.repairs=3"), exit_code=3)
    assert asked(server) == ["No comment."]
    assert len(server.log[0].body["messages"]) == 2 + 3 * 2


def test_answers_that_fit_another_contract_are_kept(tmp_path: Path, server: ChatServer) -> None:
    folder = copied("labels", tmp_path)
    more = ["--set", 'answer.labels=["good", "bad", "mixed", "unclear"]', "--set", "answer.keep_old=true", "--yes"]
    typed(folder, *line("labels", server.url, *more), exit_code=3)
    assert server.arrived == 7  # what was truncated, filtered, refused, invalid or failed


def test_more_samples_ask_only_those_that_are_new(tmp_path: Path, server: ChatServer) -> None:
    folder = copied("opinions", tmp_path)
    typed(folder, *line("opinions", server.url, "--set", "answer.samples=3"))
    assert server.arrived == 10
    assert {seen.body["seed"] for seen in server.log} == {9}
    assert table(folder / "opinions.parquet")["opinions"].list.len().unique().to_list() == [3]


def test_a_stopped_job_asks_the_rest_and_what_failed_for_a_reason_that_passes(
    tmp_path: Path, server: ChatServer
) -> None:
    folder = copied("stopped", tmp_path)
    assert spent(folder) == pytest.approx(0.00027)
    typed(folder, *line("stopped", server.url, "--max-cost", "1"))
    assert asked(server) == ["Question 10", "Question 11", "Question 2"]
    out = table(folder / "stopped.csv")
    assert out["answer"].to_list() == [answer_to(prompt) for prompt in out["prompt"]]
    assert spent(folder) == pytest.approx(0.00036) == pytest.approx(out["cost"].sum())


def test_a_failure_that_passed_and_comes_back_is_told_again(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        return Canned(413, problem("prompt is too long")) if seen.prompt == "Question 2" else None

    folder = copied("stopped", tmp_path)
    with ChatServer(reply) as server:
        typed(folder, *line("stopped", server.url, "--max-cost", "1"), exit_code=3)
        assert server.arrived == 3
    assert table(folder / "stopped.csv")["error"].drop_nulls().to_list() == ["too_long: prompt is too long"]


@pytest.mark.parametrize("resumed", [False, True], ids=["the same line", "resume"])
def test_open_batches_are_taken_up_and_fetched_and_none_is_made_anew(tmp_path: Path, resumed: bool) -> None:
    folder = copied("batch", tmp_path)
    held: dict[str, Any] = json.loads((folder / "provider.json").read_text("utf-8"))
    files = {name: content.encode() for name, content in held["files"].items()}
    provider = Provider(files=files, batches=held["batches"], looks=0)
    with serving(provider) as url:
        standing = json.loads(typed(folder, "status", "batch.csv", "--json").stdout)
        assert len(standing["batches"]) == 3
        moved(folder, url)
        typed(folder, *(["resume", "batch.csv", "--yes"] if resumed else line("batch", url)))
    assert not any(call.startswith("POST") for call in provider.calls)
    assert len(provider.billed) == 20
    assert set(provider.billed.values()) == {1}
    out = table(folder / "batch.csv")
    assert out["status"].unique().to_list() == ["ok"]
    assert out["text"].to_list() == [f"Order {number}: as described." for number in range(20)]
    assert not list((folder / "batch.csv.job" / "batches").iterdir())
