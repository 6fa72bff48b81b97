"""Starting Ray: what is missing is reported before anything is sent."""

import subprocess
import sys
import time
from pathlib import Path

from ray_session import job, words

from pipeline.records import Exit


def test_a_cluster_that_is_not_there_is_reported_at_once(tmp_path: Path) -> None:
    job(tmp_path, "http://127.0.0.1:9/v1")
    line = words(tmp_path, "http://127.0.0.1:9/v1", "run.address=127.0.0.1:9")
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pipeline", *line], capture_output=True, text=True, check=False)
    assert done.returncode == Exit.USAGE
    assert "There is no Ray cluster at 127.0.0.1:9" in done.stderr
    assert time.monotonic() - began < 30


def test_without_ray_the_command_that_installs_it_is_named(tmp_path: Path) -> None:
    job(tmp_path, "http://127.0.0.1:9/v1")
    program = "import sys; sys.modules['ray'] = None; from pipeline.cli import main; main()"
    line = [sys.executable, "-c", program, *words(tmp_path, "http://127.0.0.1:9/v1")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == Exit.USAGE
    assert 'pip install "batch-prompt-pipeline[ray]"' in done.stderr
