"""The README keeps its word: its commands run, its tables are those of the code."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
from chat_server import ChatServer, Seen
from click.testing import CliRunner
from generate import readme_with_table

from pipeline.cli.group import GROUPS, main
from pipeline.job.job import ADDED_COLUMNS
from pipeline.records import STATUSES, Exit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
OPENAI = "https://api.openai.com/v1"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")


def typed(*words: str) -> str:
    return CliRunner().invoke(main, words, catch_exceptions=False).stdout


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def checkout(folder: Path, url: str) -> dict[str, str]:
    """A copy of what the README's commands need, with the endpoint on this machine; the environment to run them in."""
    for name in ("configs", "sample_data"):
        shutil.copytree(ROOT / name, folder / name)
    config = folder / "configs" / "openai.toml"
    prices = "\n[prices]   # those of a provider are known by its address\ninput = 0.4\noutput = 1.6\n"
    config.write_text(config.read_text("utf-8").replace(OPENAI, url) + prices, "utf-8")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OPENAI_API_KEY": "sk-test-readme"}


def test_every_command_runs_in_the_order_they_are_told(tmp_path: Path) -> None:
    with ChatServer(key="sk-test-readme") as server:
        environment = checkout(tmp_path, server.url)
        scripts = [block for block in blocks("sh") if "make demo" not in block]
        assert len(scripts) >= 3
        script = "".join(scripts).replace(OPENAI, server.url).replace("sk-…", "sk-test-readme")
        done = subprocess.run(
            ["bash", "-euxc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert server.arrived == 60 + 3
    assert "55 to ask" in done.stderr
    assert "60 ok = 60." in done.stderr
    labels = pl.read_csv(tmp_path / "labels.csv", infer_schema=False)
    assert labels.height == 60
    assert set(labels["label"]) <= {"positive", "negative"}
    assert pl.read_parquet(tmp_path / "so-far.parquet").height == 60


def test_the_session_that_it_shows_goes_as_it_is_shown(tmp_path: Path) -> None:
    """Its very lines, against a chat server that takes its time; what is said differs in numbers alone."""
    (session,) = blocks("console")
    lines = re.findall(r"^\$ (pipeline .*)$", session, re.MULTILINE)
    kinds = "init estimate run run status tune stop resume export report score history"
    assert [line.split()[1] for line in lines] == kinds.split()

    def take_time(_seen: Seen, _attempt: int) -> None:
        server.delay_seconds = 2.0 if (tmp_path / "slow").exists() else 0.0

    with ChatServer(take_time) as server:
        environment = checkout(tmp_path, server.url)
        script = ["exec 2>&1"]
        for line in lines:
            script += ["touch slow"] if line.endswith("&") else []
            script.append(line.replace("local:smollm2-135m", f"{server.url} -m m"))
            if line.endswith("&"):
                script.append("RUN=$!; until grep -q running <(pipeline status out.csv); do sleep 0.1; done")
            if line.startswith("pipeline stop"):
                script += ["wait $RUN || echo exit code $?; rm slow"]
        script.insert(2, "sed -i 's/^# concurrency = .*/concurrency = 4/' job.toml")
        done = subprocess.run(
            ["bash", "-uc", "\n".join(script)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert server.arrived == 60
    said = done.stdout
    assert "Traceback" not in said
    assert "exit code 4" in said
    for told in (
        "60 to ask, 0 answered before", "Of 8 rows by chance 8 have a valid answer", "8 answered before, 52 to ask",
        "· running, begun", "concurrency 4 → 2", "said `pipeline stop`.", "60 ok = 60", "60 of 60 rows have an outcome",
        "--sample: 8 → none", "out.csv.report.html: one page", "out.csv · label against gold", "60 rows: 60 scored",
    ):  # fmt: skip
        assert told in said, said
    shown = [re.sub(r"\W+", " ", line)[:6] for line in session.splitlines() if not line.startswith("$")]
    assert {line for line in shown if line.startswith(("Wrote", "Tuned", "Done i", "Stoppe"))} <= {
        re.sub(r"\W+", " ", line)[:6] for line in said.splitlines()
    }


def test_the_python_example_runs(tmp_path: Path) -> None:
    (example,) = blocks("python")
    with ChatServer() as server:
        environment = checkout(tmp_path, server.url)
        done = subprocess.run(
            [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("60 ")


def test_the_make_targets_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"\bmake ([a-z-]+)", README)) - {"it"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_test_that_it_names_exists() -> None:
    written = "".join(path.read_text("utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    told = re.findall(r"`(test_\w+)`", README)
    assert len(told) > 20
    assert [name for name in told if f"def {name}(" not in written] == []


def test_the_table_of_settings_is_that_of_the_code() -> None:
    assert readme_with_table(README) == README, "python tests/generate.py writes it anew"


def test_every_added_column_status_and_exit_code_is_told() -> None:
    for name in ADDED_COLUMNS:
        assert f"`{name}`" in README
    for status in STATUSES:
        assert f"`{status}`" in README
    rows = "\n".join(line for line in README.splitlines() if line.startswith("| "))
    for code in Exit:
        assert re.search(rf"^\| (\d+, )*{code.value}\b", rows, re.MULTILINE), code


def test_every_flag_that_it_names_exists() -> None:
    commands = [(), *((name,) for names in GROUPS.values() for name in names)]
    helps = "".join(typed(*command, "--help") for command in commands)
    scripts = re.findall(r"`python (tests/\S+) ([^`]+)`", README)
    for script, words in scripts:
        text = (ROOT / script).read_text("utf-8")
        assert [flag for flag in FLAG.findall(words) if f'"{flag}"' not in text] == []
    told = set(FLAG.findall(re.sub(r"`python tests/[^`]+`", "", README)))
    assert {flag for flag in told if flag not in helps} <= {"--time"}  # Slurm's own
