"""A key goes to its endpoint and nowhere else: not into a file, a log, a screen, a traceback or the process list."""

import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from chat_server import Canned, ChatServer, Seen, completion

from pipeline.folder.history import find_job_folder
from pipeline.results.show import show_rows

KEY = 'sk-canary/x7Q2vB+Lm4="&Rt8Zk1Wd6'
HEADER_KEY = "hdr-x7Q2vB9Lm4-Rt8Zk1Wd6Hn3"
PROXY_KEY = "proxy-wren-9931-ghjk"
SECRETS = (KEY, HEADER_KEY, PROXY_KEY)

# all that could tell it: every log at its lowest level, asyncio's debug mode, Python's development mode, and at an
# uncaught exception the variables of every frame
HARNESS = """
import logging, sys, traceback
logging.basicConfig(level=1, stream=sys.stderr)

def tell_all(kind, error, trace):
    told = traceback.TracebackException(kind, error, trace, capture_locals=True)
    print("".join(told.format()), file=sys.stderr)

sys.excepthook = tell_all
if sys.argv[1] == "crash":
    from pipeline.execution.live import lane
    def read_reply(reply, sent=b""):
        raise RuntimeError("a mistake in the program")
    lane.read_reply = read_reply
from pipeline.cli import main
main.main(sys.argv[2:], standalone_mode=sys.argv[1] != "crash")
"""

JOB = """
[endpoint]
base_url = "{url}"
model = "m"
api_key_env = "CANARY"
headers = {{ x-api-key = "Token {header}" }}
plain_http = true
[prompt]
template = "Say {{{{ q }}}}"
"""


def windows(secret: str, width: int = 10) -> set[str]:
    """The parts of a secret that are long enough to tell it from other text."""
    return {secret[at : at + width] for at in range(len(secret) - width + 1)}


def decoded(text: str) -> str:
    """The text with what JSON, URLs and HTML spell otherwise as it is meant."""
    text = re.sub(r"\\+u([0-9a-fA-F]{4})", lambda found: chr(int(found[1], 16)), text)
    return html.unescape(unquote(re.sub(r'\\+([/"\\])', r"\1", text)))


def leaks(*texts: str) -> set[str]:
    sought = {part for secret in SECRETS for part in windows(secret)}
    return {part for text in texts for part in sought if part in text or part in decoded(text)}


def produced(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "job.toml":
            yield path.read_bytes().decode("latin-1")


class Bench:
    """A folder with a job in it, and the command line run there with all that could tell its key."""

    def __init__(self, folder: Path, url: str, rows: list[str]) -> None:
        self.folder = folder
        (folder / "job.toml").write_text(JOB.format(url=url, header=HEADER_KEY), "utf-8")
        (folder / "in.csv").write_text("q\n" + "".join(f"{row}\n" for row in rows), "utf-8")

    def command(self, *words: str, how: str = "plain", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-X", "dev", "-c", HARNESS, how, *words],
            cwd=self.folder,
            env={**os.environ, "CANARY": KEY, "PYTHONASYNCIODEBUG": "1", "HTTPX_LOG_LEVEL": "trace", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, *more: str, how: str = "plain", **environment: str) -> subprocess.CompletedProcess[str]:
        done = self.command("run", "in.csv", "-c", "job.toml", "-o", "out.csv", "-v", *more, how=how, **environment)
        assert not leaks(done.stdout, done.stderr, *produced(self.folder))
        return done


def headers_of(seen: Seen) -> dict[str, str]:
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["x-api-key"] == f"Token {HEADER_KEY}"
    return seen.headers


def command_lines() -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(place.read_bytes().decode("latin-1"))
        except OSError:  # a process that has ended meanwhile
            continue
    return found


def echo(seen: Seen, attempt: int) -> Canned | None:
    """All that came, said again in as many ways as there are rows."""
    dump = json.dumps(headers_of(seen))
    word = seen.prompt.removeprefix("Say ")
    if word == "first":
        return None
    if word == "answer":
        body = completion(f"you sent {dump}", model=f"m-{KEY}", finish_reason="stop")
        return Canned(200, body, {"x-echo": f"{KEY} {HEADER_KEY}"})
    if word == "calls":
        return Canned(200, completion(None, tool_calls=[{"function": {"name": KEY, "arguments": dump}}]))
    if word == "broken":
        return Canned(500, dump.encode(), {"retry-after-ms": "1"})
    if word == "cut":
        said = f'{{"error":{{"message":"wrong key {KEY}'.encode()
        return Canned(400, said, {"retry-after-ms": "1"}, cut_after=len(said) - 6)
    spelled = {
        "json": dump,
        "php": dump.replace("/", "\\/"),
        "escaped": "".join(f"\\u{ord(letter):04x}" for letter in f"{KEY} {HEADER_KEY}"),
        "url": quote(f"{KEY} {HEADER_KEY}", safe=""),
    }[word]
    return Canned(400, f'{{"error": {{"message": "what is {spelled}?"}}}}'.encode())


ECHOED = ["answer", "calls", "broken", "cut", "json", "php", "escaped", "url"]


def test_a_key_that_is_said_again_in_every_way_is_nowhere_but_at_its_endpoint(tmp_path: Path) -> None:
    seen_lines: list[str] = []

    def reply(seen: Seen, attempt: int) -> Canned | None:
        seen_lines.extend(command_lines())
        return echo(seen, attempt)

    with ChatServer(reply) as server:
        bench = Bench(tmp_path, server.url, ["first", *ECHOED])
        done = bench.run()
        assert done.returncode == 3, done.stderr
        assert "DEBUG:" in done.stderr, "nothing was logged, so nothing was tried"
        again = bench.command("resume", "out.csv", "--retry", "failed")
        assert again.returncode == 3, again.stderr  # the key has answered before, so it is not to blame
    assert any("out.csv" in line for line in seen_lines)
    others = [
        bench.command(*words)
        for words in (
            ("preview", "in.csv", "-c", "job.toml"),
            ("show", "out.csv"),
            ("export", "out.csv", "-o", "other.parquet"),
        )
    ]
    assert [other.returncode for other in others] == [0, 0, 0]
    said = [text for each in (again, *others) for text in (each.stdout, each.stderr)]
    assert not leaks(*said, *seen_lines, *produced(tmp_path))
    told = "".join(show_rows(find_job_folder(tmp_path / "out.csv"), status=None, row=None, most=99))
    assert "you sent" in told
    assert "***" in told


def test_a_key_that_is_refused_is_not_in_the_words_of_the_refusal(tmp_path: Path) -> None:
    with ChatServer(key="another") as server:
        done = Bench(tmp_path, server.url, ["first"]).run()
    assert done.returncode == 1
    assert "Incorrect API key provided: ***." in done.stderr


def test_a_redirect_stops_the_job_and_its_goal_is_told_without_the_key(tmp_path: Path) -> None:
    with ChatServer() as elsewhere:
        place = {"location": f"{elsewhere.url}/chat/completions?key={KEY}"}
        with ChatServer(lambda _seen, _attempt: Canned(307, b"", place)) as server:
            done = Bench(tmp_path, server.url, ["first"]).run()
        assert elsewhere.arrived == 0
    assert done.returncode == 1
    assert "redirects are never followed" in done.stderr


def test_a_proxy_and_its_password_are_told_nowhere(tmp_path: Path) -> None:
    with ChatServer(lambda seen, _attempt: Canned(407, f"no {headers_of(seen)}".encode())) as proxy:
        address = proxy.url.removesuffix("/v1").replace("//", f"//user:{PROXY_KEY}@")
        done = Bench(tmp_path, "http://models.invalid/v1", ["first"]).run(HTTP_PROXY=address)
        assert proxy.arrived == 1
    assert done.returncode == 1
    broken = Bench(tmp_path, "http://models.invalid/v1", ["first"])
    assert broken.run(HTTP_PROXY=f"gopher://user:{PROXY_KEY}@127.0.0.1:1").returncode == 2


def test_a_crash_tells_every_variable_of_every_frame_and_no_key(tmp_path: Path) -> None:
    with ChatServer() as server:
        done = Bench(tmp_path, server.url, ["first"]).run(how="crash")
    assert done.returncode == 1
    assert "a mistake in the program" in done.stderr
    assert "job = Job(" in done.stderr, "the variables are told"


@pytest.mark.parametrize(
    ("line", "by"),
    [
        (f"api_key_env = '{KEY}'", 'api_key_env = "CANARY"'),
        (f'api_key_env = "{HEADER_KEY.replace("-", "_")}"', 'api_key_env = "CANARY"'),
        (f'base_url = "https://user:{HEADER_KEY}@host/v1"', "base_url"),
        (f'base_url = "ftp://user:{HEADER_KEY}@host/v1"', "base_url"),
        (f'base_url = "https://host/v1?key={HEADER_KEY}"', "base_url"),
        (f'headers = {{ x-api-key = "{HEADER_KEY}\\n" }}', "headers"),
        (f"headers = {{ x-api-key = ['{HEADER_KEY}'] }}", "headers"),
        (f'api_key_default = 5\nname = "{HEADER_KEY}\x7f"', "model"),
    ],
)  # fmt: skip
def test_a_key_that_was_put_in_the_wrong_place_is_not_quoted(tmp_path: Path, line: str, by: str) -> None:
    bench = Bench(tmp_path, "http://127.0.0.1:9/v1", ["first"])
    text = (tmp_path / "job.toml").read_text("utf-8")
    repair_kind = "\n".join(line if each.startswith(by) else each for each in text.splitlines())
    (tmp_path / "job.toml").write_text(repair_kind, "utf-8")
    done = bench.command("run", "in.csv", "-c", "job.toml", "-o", "out.csv")
    assert done.returncode == 2, done.stderr
    leaked = leaks(done.stdout, done.stderr) | {
        part for part in windows(HEADER_KEY.replace("-", "_")) if part in done.stderr
    }
    assert not leaked, done.stderr
