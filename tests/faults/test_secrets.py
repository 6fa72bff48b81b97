"""Secrets: answers are the user's data and stay as they are; what is used as a key is in no file, log or message."""

import json
import re
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from batch_runs import batch_job, write_table
from batch_server import Provider, serving, usual
from chat_server import Canned, ChatServer, Seen, completion, problem
from command_line import asking, typed
from hypothesis import given, settings
from hypothesis import strategies as st
from keys import PLACEHOLDERS, SHAPES, invented_key

from pipeline import run
from pipeline.endpoint.redact import Redactor
from pipeline.records import Reply

SAID = "I could not find anything: not-needed, EMPTY, token-abc123 and sk-no-key-required are placeholders."
DUMMIES = ["not-needed", "anything", "token-abc123", "sk-no-key-required", "your-api-key-here", "lm-studio"]
HARD, SOFT = invented_key("Azure"), "geheim-12"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "in.csv").write_text("q\none\ntwo\nthree\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job_file(folder: Path, url: str, endpoint: str, rest: str = "") -> None:
    text = f'[endpoint]\nbase_url = "{url}"\nmodel = "m"\n{endpoint}\n[prompt]\ntemplate = "Say {{{{ q }}}}"\n{rest}'
    (folder / "job.toml").write_text(text, "utf-8")


def kept_in(folder: Path) -> str:
    """All that the program wrote, and what JSON and URLs spell otherwise as it is meant."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name not in ("job.toml", "in.csv")]
    return "\n".join(path.read_bytes().decode("latin-1") for path in paths)


@pytest.mark.parametrize("key", DUMMIES)
def test_an_answer_that_repeats_a_placeholder_is_kept_to_the_letter_and_labels_stay_valid(here: Path, key: str) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(200, completion(json.dumps({"label": key})))) as server:
        rest = f'[answer]\nlabels = ["{key}", "something"]\n'
        job_file(here, server.url, f'api_key_default = "{key}"', rest)
        done = typed("run", "in.csv", "-c", "job.toml", "-o", "out.csv")
        assert done.returncode == 0, done.stderr
        assert server.arrived == 3
    assert pl.read_csv("out.csv")["label"].to_list() == [key] * 3


def test_reasoning_tool_calls_and_logprobs_that_repeat_a_placeholder_are_kept(here: Path) -> None:
    calls = [{"function": {"name": "not-needed", "arguments": '{"a": "not-needed"}'}}]
    bodies = {
        "one": completion(None, tool_calls=calls, model="not-needed"),
        "two": completion(SAID, refusal=SAID),
        "three": completion(SAID, reasoning_content=SAID),
    }
    with ChatServer(lambda seen, _attempt: Canned(200, bodies[seen.prompt.removeprefix("Say ")])) as server:
        job_file(here, server.url, 'api_key_default = "not-needed"\nheaders = { X-Api-Key = "anything" }')
        typed("run", "in.csv", "-c", "job.toml", "-o", "out.csv")
    answers = pl.read_csv("out.csv")["answer"].to_list()
    assert json.loads(answers[0]) == calls
    assert answers[1:] == [SAID, SAID]


@pytest.mark.parametrize("status", [200, 400])
def test_an_error_that_repeats_a_placeholder_is_without_it_also_under_status_200(here: Path, status: int) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(status, problem(f"wrong key {SOFT} of {HARD}"))) as server:
        job_file(here, server.url, f'api_key_default = "{SOFT}"\nheaders = {{ X-Tenant = "{HARD}" }}')
        done = typed("run", "in.csv", "-c", "job.toml", "-o", "out.csv", "-v")
    assert "wrong key *** of ***" in done.stderr
    assert SOFT not in kept_in(here) + done.stderr
    assert HARD not in kept_in(here) + done.stderr


@given(st.lists(st.sampled_from([*PLACEHOLDERS, "I", "could", "not", "find", "\n", '"', "\\", "é"]), max_size=20))
@settings(max_examples=50)
def test_an_answer_of_any_words_is_byte_for_byte_the_same_with_any_placeholder_as_the_key(words: list[str]) -> None:
    redactor = Redactor([*PLACEHOLDERS, *(f"Bearer {word}" for word in PLACEHOLDERS)])
    answer = Reply(200, {}, completion(" ".join(words) or "."), 0.0)
    assert redactor.redact_reply(answer).body == answer.body


@pytest.mark.parametrize("provider", SHAPES)
def test_a_key_of_a_providers_shape_is_hidden_in_an_answer_however_it_is_spelled(provider: str) -> None:
    key = invented_key(provider)
    for spelled in (key, quote(key, safe=""), key.replace("/", "\\/"), "".join(f"\\u{ord(each):04x}" for each in key)):
        body = completion("you sent KEY here").replace(b"KEY", spelled.encode())
        said = Redactor([f"Bearer {key}", key]).redact_reply(Reply(200, {}, body, 0.0)).body
        assert said == completion("you sent *** here")


HEADERS = [
    ("X-Credential", HARD, [HARD]),
    ("Ocp-Apim-Subscription", f"Bearer {HARD}", [HARD]),
    ("X-Signature", f"key={HARD}", [HARD]),
    ("X-Visit", f"a=b; session={HARD}; c=d", [HARD]),
    ("Authorization", f"Basic {b64encode(f'anna:{SOFT}'.encode()).decode()}", [SOFT]),
    ("X-Login", f"Basic {b64encode(f'anna:{HARD}'.encode()).decode()}", [HARD]),
]


@pytest.mark.parametrize(("name", "value", "secrets"), HEADERS)
def test_a_header_that_looks_like_a_secret_is_told_nowhere_whatever_its_name(
    here: Path, name: str, value: str, secrets: list[str]
) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        sent = seen.headers[name.lower()]
        every = f"{sent} {' '.join(secrets)} {quote(secrets[0], safe='')}"
        if seen.prompt == "Say one":
            return Canned(200, completion(f"you sent {every}" if HARD in secrets else "fine"), {"x-echo": every})
        return Canned(413, problem(f"too long: {every}"), {"x-echo": every})

    with ChatServer(reply) as server:
        job_file(here, server.url, f'headers = {{ "{name}" = "{value}", X-Title = "my project" }}')
        done = typed("run", "in.csv", "-c", "job.toml", "-o", "out.csv", "-v")
    told = done.stderr + done.stdout + kept_in(here)
    assert [each for each in (value, *secrets) if each in told] == []
    assert "***" in told


def test_a_header_that_does_not_look_like_a_secret_is_told(here: Path) -> None:
    with ChatServer(lambda _seen, _attempt: Canned(413, problem("too long for my project, assistants=v2"))) as server:
        job_file(here, server.url, 'headers = { X-Title = "my project", OpenAI-Beta = "assistants=v2" }')
        done = typed("run", "in.csv", "-c", "job.toml", "-o", "out.csv", "-v")
    assert "too long for my project, assistants=v2" in done.stderr


@pytest.mark.parametrize("place", ["https://anna:{}@host/v1", "anna:{}@host/v1", "https://{}@host/v1"])
def test_a_password_in_the_address_is_refused_and_not_quoted(here: Path, place: str) -> None:
    job_file(here, place.format(SOFT), "")
    done = typed("run", "in.csv", "-c", "job.toml", "-o", "out.csv")
    assert done.returncode == 2
    assert "a key or a query does not belong in the address" in done.stderr
    assert SOFT not in done.stderr


def test_a_proxys_password_that_the_proxy_says_again_is_told_nowhere(here: Path) -> None:
    login = b64encode(f"anna:{SOFT}".encode()).decode()
    with ChatServer(lambda _seen, _attempt: Canned(407, f"no anna:{SOFT} {login} {SOFT}".encode())) as proxy:
        job_file(here, "http://models.invalid/v1", "")
        address = proxy.url.removesuffix("/v1").replace("//", f"//anna:{SOFT}@")
        done = typed("run", "in.csv", "-c", "job.toml", "-o", "out.csv", "-v", HTTP_PROXY=address)
        assert proxy.arrived
    assert done.returncode == 1
    told = done.stderr + kept_in(here)
    assert SOFT not in told
    assert login not in told


LINE = f"curl -s -H 'Authorization: Bearer {HARD}' https://example.invalid || true"


@pytest.mark.parametrize(
    "flags",
    [
        ["--on-finish", LINE],
        [f"--on-finish={LINE}"],
        ["--system", f"Use the key {HARD}."],
        ["--set", f"prompt.system=The key is {invented_key('OpenAI')}"],
        ["--set", f"parameters.api_key={HARD}"],
    ],
)
def test_a_secret_in_the_command_line_is_kept_nowhere_and_resume_asks_for_the_line(
    here: Path, flags: list[str]
) -> None:
    with ChatServer() as server:
        line = ["run", "in.csv", "-o", "out.parquet", *asking(server), *flags]
        assert typed(*line, "--sample", "2").returncode == 0
        assert typed(*line).returncode == 0
        shown = [typed(*words).stdout for words in (["history", "out.parquet"], ["history", "out.parquet", "--json"])]
        shown += [typed("show", "out.parquet").stdout]
        assert typed("report", "out.parquet").returncode == 0
        told = "\n".join(shown) + kept_in(here)
        assert [key for key in (HARD, invented_key("OpenAI")) if key in told] == []
        arrived = server.arrived
        resumed = typed("resume", "out.parquet")
        assert resumed.returncode == 2
        assert "Nothing was sent." in resumed.stderr
        assert "***" in resumed.stderr
        assert HARD not in resumed.stderr
        again = typed(*line)
        assert again.returncode == 0, again.stderr
        assert "0 to ask" in again.stderr
        assert server.arrived == arrived


def test_a_line_that_an_earlier_version_kept_whole_is_shown_without_its_secret_and_resumed(here: Path) -> None:
    with ChatServer() as server:
        line = ["run", "in.csv", "-o", "out.csv", *asking(server), "--system", "Be brief.", "--on-finish", "true"]
        assert typed(*line).returncode == 0
        path = here / "out.csv.job" / "history.jsonl"
        history = path.read_text("utf-8").replace('"true"', f'"echo {HARD}"').replace("Be brief.", f"Key {HARD}.")
        path.write_text(re.sub(r',"(seen_hash|hidden_words)":("\w*"|\[\])', "", history), "utf-8")
        assert typed("report", "out.csv").returncode == 0
        told = typed("history", "out.csv").stdout + (here / "out.csv.report.html").read_text("utf-8")
        assert HARD not in told
        assert told.count("***") >= 3
        resumed = typed("resume", "out.csv", "--yes")
        assert resumed.returncode == 0, resumed.stderr
    assert server.log[-1].body["messages"][0]["content"] == f"Key {HARD}."


@pytest.mark.parametrize(
    "words",
    [
        [invented_key("OpenAI"), "-o", "out.csv"],
        ["in.csv", "-o", f"{invented_key('Groq')}.xyz"],
        ["in.csv", "-o", "out.csv", "--set", f"endpoint.headers:X-Key={HARD}"],
        ["in.csv", "-o", "out.csv", "--set", f"api_key={HARD}"],
        ["in.csv", "-o", "out.csv", "--set", f"endpoint.api_key_env='{invented_key('OpenAI')}'"],
    ],
)
def test_a_key_that_was_typed_in_the_wrong_place_is_not_said_again(here: Path, words: list[str]) -> None:
    done = typed("run", *words, "--base-url", "http://127.0.0.1:9/v1", "-m", "m", "-p", "{{ q }}")
    assert done.returncode == 2
    keys = (HARD, invented_key("OpenAI"), invented_key("Groq"))
    assert [key for key in keys if key in done.stderr + done.stdout] == []


def test_resume_takes_a_flag_that_held_a_secret_from_its_variable_again_and_again(here: Path) -> None:
    command = f"echo {HARD} >> told.txt"
    with ChatServer() as server:
        assert typed("run", "in.csv", "-o", "out.csv", *asking(server), "--on-finish", command).returncode == 0
        for times in (2, 3):
            refused = typed("resume", "out.csv")
            assert "PIPELINE_RUN_ON_FINISH" in refused.stderr
            resumed = typed("resume", "out.csv", PIPELINE_RUN_ON_FINISH=command)
            assert resumed.returncode == 0, resumed.stderr
            assert (here / "told.txt").read_text() == f"{HARD}\n" * times
        assert server.arrived == 3
    assert HARD not in (here / "out.csv.job" / "history.jsonl").read_text()


def test_stars_that_were_typed_are_no_secret_and_a_line_without_one_is_resumed(here: Path) -> None:
    with ChatServer() as server:
        flags = ["--system", "Mark names with ***.", "--on-finish", 'echo "$PIPELINE_EXIT_CODE" >> told.txt']
        assert typed("run", "in.csv", "-o", "out.csv", *asking(server), *flags).returncode == 0
        resumed = typed("resume", "out.csv")
        assert resumed.returncode == 0, resumed.stderr
        assert "0 to ask" in resumed.stderr
    assert (here / "told.txt").read_text() == "0\n0\n"


def test_a_change_in_nothing_but_the_secret_of_a_prompt_is_shown_before_it_is_paid_for(here: Path) -> None:
    with ChatServer() as server:
        line = ["run", "in.csv", "-o", "out.csv", *asking(server), "--system"]
        assert typed(*line, f"key {invented_key('OpenAI', 1)}").returncode == 0
        changed = typed(*line, f"key {invented_key('OpenAI', 2)}")
        assert changed.returncode == 2
        assert "prompt.system changed since" in changed.stderr
        assert server.arrived == 3
        assert typed(*line, f"key {invented_key('OpenAI', 2)}", "--yes").returncode == 0
        systems = [seen.body["messages"][0]["content"] for seen in server.log[3:]]
    assert systems == [f"key {invented_key('OpenAI', 2)}"] * 3


def test_a_batchs_results_keep_a_placeholder_and_its_errors_and_keys_are_hidden(here: Path) -> None:
    said = {
        "question 0": completion("you need not-needed and no geheim-12"),
        "question 1": completion(f"you sent {HARD}"),
        "question 2": problem("prompt is too long for geheim-12"),
    }

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        prompt = body["messages"][-1]["content"]
        return (400 if prompt == "question 2" else 200, said[prompt]) if prompt in said else usual(body)

    write_table(here, 5)
    with serving(Provider(answer=answer)) as url:
        headers = {"X-Api-Key": "not-needed", "X-Tenant": HARD}
        run(batch_job(here, url, endpoint__headers=headers, endpoint__api_key_default=SOFT))
    table = pl.read_parquet("out.parquet")
    assert table["answer"].to_list()[:2] == ["you need not-needed and no geheim-12", "you sent ***"]
    assert "too long for ***" in table["error"][2]
