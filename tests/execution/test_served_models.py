"""Another model than asked, or another than before, is told at its first answer; spellings are not."""

from contextlib import closing
from pathlib import Path

import pytest
from builders import job as make_job
from builders import questions
from chat_server import Canned, ChatServer, Seen, answer_to, completion

from pipeline import ThisRun, run
from pipeline.execution.served_models import ASKED_MAX, NAMES_MAX, TOLD_MAX, ServedModels
from pipeline.job.job import Job
from pipeline.runs.texts import summary_text
from pipeline.store.notes import read_served_models
from pipeline.store.reader import Reader


def models(host: str = "api.openai.com", **earlier: dict[str, int]) -> ServedModels:
    job = Job.load(["in.csv"], settings={"endpoint.base_url": f"https://{host}/v1", "endpoint.model": "gpt-6"})
    return ServedModels(job, earlier)


def told(made: ServedModels, asked: str, *served: str) -> list[str]:
    return [news.text for name in served if (news := made.add(asked, name)) is not None]


def test_the_asked_model_in_any_spelling_is_not_told() -> None:
    names = ["gpt-6", "gpt-6-2026-07-01", "openai/gpt-6", "GPT-6", "gpt-6-2026-07-01"]
    assert not told(models(), "gpt-6", *names)


def test_another_model_than_asked_is_an_alarm_at_a_provider_and_a_note_elsewhere() -> None:
    news = models().add("gpt-6", "gpt-5")
    assert news is not None
    assert news.is_alarm
    assert "gpt-5, not gpt-6" in news.text
    for host in ("my.openai.azure.com", "127.0.0.1:8000", "gateway.example"):
        made = models(host)
        news = made.add("my-deploy", "gpt-4o-2024-11-20")
        assert news is not None
        assert not news.is_alarm
        assert not told(made, "my-deploy", "gpt-4o-2024-11-20", "gpt-4o")


@pytest.mark.parametrize("host", ["api.openai.com", "127.0.0.1:8000"])
def test_a_change_is_an_alarm_everywhere_with_the_number_of_answers_so_far_and_said_once(host: str) -> None:
    made = models(host)
    for _ in range(1200):
        made.add("gpt-6", "gpt-6-2026-07-01")
    news = made.add("gpt-6", "gpt-6-2026-11-01")
    assert news is not None
    assert news.is_alarm
    assert "gpt-6-2026-11-01. The 1,200 answers so far for gpt-6 came from gpt-6-2026-07-01" in news.text
    assert not told(made, "gpt-6", "gpt-6-2026-11-01", "gpt-6-2026-07-01")


def test_what_earlier_runs_saw_counts() -> None:
    earlier = {"gpt-6": {"gpt-6-2026-07-01": 40}}
    assert not told(models(**earlier), "gpt-6", "gpt-6-2026-07-01")
    [text] = told(models(**earlier), "gpt-6", "gpt-6-terra")
    assert "The 40 answers so far" in text


def test_a_router_may_answer_with_any_model_in_silence() -> None:
    made = models("openrouter.ai")
    assert not told(made, "openrouter/auto", "openai/gpt-6", "anthropic/claude-5", "google/gemini-4")
    assert len(made.counts["openrouter/auto"]) == 3


def test_many_names_take_bounded_memory_and_few_lines() -> None:
    made = models()
    texts = told(made, "gpt-6", *(f"model-{number}x{'y' * 10_000}" for number in range(500)))
    assert len(texts) == TOLD_MAX
    assert texts[-1].endswith("Further names are not told.")
    assert max(map(len, texts)) < 1000
    names = made.counts["gpt-6"]
    assert len(names) == NAMES_MAX + 1
    assert names[""] == 500 - NAMES_MAX
    for number in range(500):
        made.add(f"asked-{number}", "one")
    assert len(made.counts) == ASKED_MAX


def test_control_characters_of_a_name_reach_no_screen() -> None:
    [text] = told(models(), "gpt-6", "gpt-5\x1b[31m\nred")
    assert "\x1b" not in text
    assert "gpt-5" in text


def test_a_change_during_the_job_is_on_the_screen_in_the_summary_and_kept_for_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out, name = questions(tmp_path / "in.csv", range(12)), tmp_path / "out.csv", "luna-2026-07-01"

    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(body=completion(answer_to(seen.prompt), model=name))

    with ChatServer(reply) as server:
        asked = make_job(server.url, source, out, this_run=ThisRun(limit=5))
        first = run(asked)
        assert "models answered" not in summary_text(asked, first)
        name = "terra"
        whole = make_job(server.url, source, out, this_run=ThisRun())
        second = run(whole)
    said = capsys.readouterr().err
    assert said.count("Another model answers now: terra. The 5 answers so far for ") == 1
    [line] = [line for line in summary_text(whole, second).splitlines() if "models answered" in line]
    assert "terra (7 answers), luna-2026-07-01 (5 answers)" in line
    with closing(Reader(tmp_path / "out.csv.job" / "store")) as reader:
        [names] = read_served_models(reader).values()
    assert names == {"luna-2026-07-01": 5, "terra": 7}
