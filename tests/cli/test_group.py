"""The command line as a newcomer types it: what is said, where, and with which exit code."""

import subprocess
import sys

from command_line import typed

HEAVY = ("polars", "pydantic", "httpx", "jinja2", "msgspec", "diskcache", "tqdm", "genai_prices", "asyncio")


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n")


def test_every_command_has_a_help_and_a_place_in_it() -> None:
    listed = typed("--help").stdout
    for command in (
        "init",
        "preview",
        "estimate",
        "run",
        "resume",
        "status",
        "tune",
        "stop",
        "show",
        "export",
        "score",
        "compare",
        "report",
        "history",
    ):
        assert f"\n  {command} " in listed
        told = typed(command, "--help")
        assert told.returncode == 0
        assert max(map(len, told.stdout.splitlines())) <= 80
    lines = listed.splitlines()[1:]
    assert all(len(line) <= 80 and not line.endswith("...") for line in lines)
    assert all(line[2] != " " for line in lines if line.startswith("  ")), "a line for each command"
    assert "the most requests per minute" in typed("run", "--help").stdout
