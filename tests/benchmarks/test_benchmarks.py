"""The benchmarks still work: what they measure is looked at by nobody here."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("run_overhead.py --against aiohttp", ["| 500 | pipeline run |", "| 500 | bare aiohttp |"]),
        ("stored_rows.py --format csv", ["| 500 | csv | run again |", "| 500 | csv | export |"]),
    ],
)
def test_a_benchmark_runs_to_its_end_and_tells_of_each_contender(script: str, lines: list[str]) -> None:
    command = [sys.executable, *script.split(), "--quick"]
    ran = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    assert all(line in ran.stdout for line in lines), ran.stdout
