"""Whatever text a server, a model or a file sends, reading it takes time in proportion to its length, and no more."""

import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion
from command_line import typed
from degenerate_texts import TEXTS, readers, repeated, timings

READERS = list(readers(Path()))


@pytest.mark.parametrize("name", READERS)
def test_the_time_for_a_text_of_one_thing_repeated_grows_in_proportion_to_its_length(name: str, tmp_path: Path) -> None:
    assert [timing for timing in timings(readers(tmp_path)[name]) if not timing.is_proportional] == []


def test_among_degenerate_answers_a_signal_is_obeyed_at_once_and_the_same_line_goes_on(tmp_path: Path) -> None:
    units, rows = [unit for unit in TEXTS.values() if not unit.isspace()], 150
    pl.DataFrame({"q": [f"question {n}" for n in range(rows)]}).write_csv(tmp_path / "in.csv")

    def reply(seen: Seen, _attempt: int) -> Canned:
        number = int(seen.prompt.split()[1])
        text = "yes" if number % 3 else repeated(units[number // 3 % len(units)], 100_000)
        return Canned(body=completion(text), delay_seconds=0.02)

    with ChatServer(reply) as server:
        line = ["run", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.parquet"), "-p", "{{ q }}", "-m", "m"]
        line += ["--base-url", server.url, "--set", 'answer.labels=["yes", "no"]', "--set", "answer.repairs=0"]
        started = subprocess.Popen([sys.executable, "-m", "pipeline", *line], stderr=subprocess.PIPE, text=True)
        server.wait_for(rows // 3)
        started.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, told = started.communicate(timeout=60)
        assert started.returncode == 143, told
        assert time.monotonic() - began < 20  # seconds, on a busy machine
        again = typed(*line)
        assert again.returncode == 3, again.stderr
        assert set(Counter(seen.prompt for seen in server.log).values()) == {1}
    statuses = pl.read_parquet(tmp_path / "out.parquet")["status"].to_list()
    assert statuses == ["ok" if number % 3 else "invalid" for number in range(rows)]
