"""Nothing that is read is run: no pickle, no eval, no shell, whatever job file, table, answer or store hold."""

import ast
import json
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest
from chat_server import Canned, ChatServer, completion

import pipeline

PACKAGE = Path(pipeline.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml", "code", "pty"}
CALLS = {"eval", "exec", "compile", "__import__", "execfile", "system", "popen", "literal_eval"}


def forbidden(tree: ast.AST) -> Iterator[str]:
    """What could run data, as it stands in the code."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            )
            yield from (name for name in names if name.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            plain = node.func.id if isinstance(node.func, ast.Name) else ""
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            whose = (
                node.func.value.id
                if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
                else ""
            )
            if plain in CALLS or (method in CALLS and whose in ("os", "ast", "builtins")):
                yield plain or method
            yield from ("shell=True" for keyword in node.keywords if keyword.arg == "shell")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_of_the_program_could_run_data(path: Path) -> None:
    wanted = ["shell=True"] if path.stem == "on_finish" else []  # the user's own command, from the command line alone
    assert list(forbidden(ast.parse(path.read_text("utf-8")))) == wanted


def test_what_could_run_data_is_noticed() -> None:
    code = "import pickle\nfrom yaml import load\neval('1')\nos.system('x')\nrun('x', shell=True)\nre.compile('x')"
    assert sorted(forbidden(ast.parse(code))) == ["eval", "pickle", "shell=True", "system", "yaml"]


WATCHED = """
import sys

STRANGE = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen")

def watch(event, arguments):
    if event.startswith(STRANGE):
        print("STRANGE", event, arguments, file=sys.stderr, flush=True)

sys.addaudithook(watch)
from pipeline.cli import main
main()
"""


class Bomb:
    """What leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_hostile_job_file_table_metadata_answer_and_store_run_nothing(tmp_path: Path) -> None:
    left = tmp_path / "left-by-code"
    bomb = pickle.dumps(Bomb(left))
    pickle.loads(bomb).close()  # noqa: S301 - the bomb is ours, and does go off
    assert left.exists()
    left.unlink()
    code = f"__import__('os').system('touch {left}')"
    metadata = {"pandas": json.dumps({"columns": [{"pandas_type": "object", "metadata": bomb.hex()}]}), "code": code}
    frame = pl.DataFrame({"q": [code, f"{{{{ {code} }}}}", "!!python/object/apply:os.system [x]"], "b": [bomb] * 3})
    frame.write_parquet(tmp_path / "in.parquet", metadata=metadata)
    (tmp_path / "job.toml").write_text(
        f"""
[prompt]
template = "{{{{ q }}}}"
system = "$(touch {left}) `touch {left}`"
[parameters]
"py/object" = "os.system"
"__class__" = "{code}"
[answer.schema]
type = "object"
additionalProperties = true
properties.label = {{ type = "string", pattern = "^.*$", default = "{code}" }}
""",
        "utf-8",
    )

    def reply(_seen: object, _attempt: int) -> Canned:
        held = {"label": code, "py/reduce": [bomb.hex()], "__reduce__": code}
        return Canned(body=completion(json.dumps(held), model=f"$(touch {left})"), headers={"x-pickle": bomb.hex()})

    with ChatServer(reply) as server:
        asking = ["run", "in.parquet", "-c", "job.toml", "-o", "out.parquet", "--base-url", server.url, "-m", "m"]
        show, export = ["show", "out.parquet"], ["export", "out.parquet", "-o", "out.csv"]
        for words, code_at_end in ((asking, 0), (show, 0), (export, 0), (["resume", "out.parquet"], 0)):
            done = watched(tmp_path, words)
            assert done.returncode == code_at_end, done.stderr
        database = tmp_path / "out.parquet.job" / "store" / "cache.db"
        with closing(sqlite3.connect(database, isolation_level=None)) as store:
            store.execute("UPDATE Cache SET mode = 4, value = ? WHERE tag = 'ok'", (bomb,))
        for words in (show, export, [*asking, "--retry", "failed"]):
            watched(tmp_path, words)
    assert not left.exists()


def watched(folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert "STRANGE" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done
