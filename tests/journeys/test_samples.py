"""Several opinions of a row: of one model or of many, each its own request; shown is what most of them hold."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import builders
import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, completion

from pipeline import BadJob, Job, Summary, ThisRun, run
from pipeline.runs.preview import preview_requests

USAGE = {"prompt_tokens": 10, "completion_tokens": 10}


def rows(path: Path, count: int) -> Path:
    pl.DataFrame({"prompt": [f"row {number}" for number in range(count)]}).write_csv(path)
    return path


def job(url: str, source: Path, output: str = "out.parquet", **settings: Any) -> Job:
    named = {"answer__labels": ["yes", "no", "maybe"], "prompt__template": None, **settings}
    return builders.job(url, source, source.with_name(output), **named)


def table(summary: Summary) -> pl.DataFrame:
    return pl.read_parquet(summary.output)


def by_seed(*labels: str) -> Any:
    """A server whose answers vary with the sample: its seed says which label it gives."""

    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(body=completion(json.dumps({"label": labels[seen.body["seed"]]}), usage=USAGE))

    return reply


def test_the_majority_is_shown_with_its_share_and_every_opinion(tmp_path: Path) -> None:
    source = rows(tmp_path / "in.csv", 20)
    with ChatServer(by_seed("no", "yes", "yes", "maybe")) as server:
        settings = {"answer__samples": 4, "parameters": {"seed": 0}, "prices__input": 1.0, "prices__output": 1.0}
        summary = run(job(server.url, source, **settings))
        assert server.arrived == 80
    out = table(summary)
    assert out["label"].to_list() == ["yes"] * 20
    assert out["agreement"].to_list() == [0.5] * 20
    assert out["opinions"].to_list() == [["no", "yes", "yes", "maybe"]] * 20
    assert out["attempts"].to_list() == [4] * 20
    assert out["cost"].sum() == pytest.approx(summary.spent) == pytest.approx(80 * 20e-6)
    assert (summary.rows.ok, summary.run.ok) == (20, 80)


def test_of_as_many_votes_the_earliest_counts_and_a_csv_holds_the_opinions_as_json(tmp_path: Path) -> None:
    source = rows(tmp_path / "in.csv", 3)
    with ChatServer(by_seed("maybe", "yes", "yes", "maybe")) as server:
        run(job(server.url, source, "out.csv", answer__samples=4, parameters={"seed": 0}))
    out = pl.read_csv(tmp_path / "out.csv")
    assert out["label"].to_list() == ["maybe"] * 3
    assert json.loads(out["opinions"][0]) == ["maybe", "yes", "yes", "maybe"]


def test_more_samples_ask_only_those_that_are_new(tmp_path: Path) -> None:
    source = rows(tmp_path / "in.csv", 10)
    with ChatServer(by_seed("no", "yes", "yes", "no", "no")) as server:
        first = run(job(server.url, source, answer__samples=3, parameters={"seed": 0}))
        assert table(first)["label"].to_list() == ["yes"] * 10
        assert server.arrived == 30
        more = run(job(server.url, source, answer__samples=5, parameters={"seed": 0}))
        assert Counter(seen.body["seed"] for seen in server.log[30:]) == {3: 10, 4: 10}
    assert table(more)["label"].to_list() == ["no"] * 10
    assert table(more)["agreement"].to_list() == [0.6] * 10


def test_a_row_is_pending_while_one_opinion_is_and_failed_only_if_all_are(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        if seen.prompt == "row 2" or (seen.prompt == "row 1" and seen.body["seed"] == 0):
            return Canned(status=413, body=b"{}")
        return Canned(body=completion('{"label": "yes"}', usage=USAGE))

    source = rows(tmp_path / "in.csv", 3)
    with ChatServer(reply) as server:
        summary = run(job(server.url, source, answer__samples=2, parameters={"seed": 0}))
        out = table(summary)
        assert out["status"].to_list() == ["ok", "ok", "failed"]
        assert out["opinions"].to_list() == [["yes", "yes"], [None, "yes"], [None, None]]
        assert (summary.rows.ok, summary.rows.failed) == (2, 1)
        capped = {"prices__input": 1.0, "prices__output": 1.0, "limits__max_cost": 1e-9, "limits__reserve_tokens": 9}
        stopped = run(job(server.url, source, answer__samples=3, parameters={"seed": 0}, **capped))
    assert (stopped.rows.pending, table(stopped)["status"].to_list()) == (3, ["pending"] * 3)


def test_each_model_has_its_own_key_pace_and_price(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        is_slow = seen.body["model"] == "slow"
        text = json.dumps({"label": "no" if is_slow else "yes"})
        return Canned(body=completion(text, usage=USAGE), delay_seconds=0.2 if is_slow else 0.0)

    source = rows(tmp_path / "in.csv", 30)
    prices = {
        "prices.models.quick": {"input": 1.0, "output": 1.0},
        "prices.models.slow": {"input": 3.0, "output": 3.0},
    }
    with ChatServer(reply) as server:
        summary = run(job(server.url, source, answer__models=["quick", "slow"], limits__concurrency=4, **prices))
        models = [seen.body["model"] for seen in server.log]
    assert Counter(models) == {"quick": 30, "slow": 30}
    assert models.index("slow") <= 1  # neither waits for the other's first answer
    assert models[:40].count("quick") == 30  # nor for its later ones
    assert summary.spent == pytest.approx(30 * (20e-6 + 60e-6))
    assert table(summary)["cost"].to_list() == pytest.approx([80e-6] * 30)
    assert table(summary)["opinions"].to_list() == [["yes", "no"]] * 30
    assert table(summary)["agreement"].to_list() == [0.5] * 30


def test_equal_rows_share_their_opinions_and_are_asked_once(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    pl.DataFrame({"prompt": ["a", "b", "a"]}).write_csv(source)
    with ChatServer(by_seed("yes", "no")) as server:
        prices = {"prices__input": 1.0, "prices__output": 1.0}
        summary = run(job(server.url, source, answer__samples=2, parameters={"seed": 0}, **prices))
        assert server.arrived == 4
    assert table(summary)["opinions"].to_list() == [["yes", "no"]] * 3
    assert table(summary)["attempts"].to_list() == [2, 2, 0]
    assert table(summary)["cost"].sum() == pytest.approx(summary.spent)


def test_the_confidence_of_a_label_is_the_probability_of_its_tokens(tmp_path: Path) -> None:
    tokens = [('{"', -0.1), ("label", -0.1), ('": "', -0.1), ("may", -0.5), ("be", -0.25), ('"}', -0.1)]

    def reply(seen: Seen, _attempt: int) -> Canned:
        body = json.loads(completion('{"label": "maybe"}', usage=USAGE))
        if seen.prompt == "row 0":
            told = [{"token": token, "logprob": logprob} for token, logprob in tokens]
            body["choices"][0]["logprobs"] = {"content": told}
        return Canned(body=json.dumps(body).encode())

    with ChatServer(reply) as server:
        summary = run(job(server.url, rows(tmp_path / "in.csv", 2), answer__logprobs=True))
        assert all(seen.body["logprobs"] is True for seen in server.log)
    told, untold = table(summary)["confidence"]
    assert told == pytest.approx(2.718281828**-0.75)
    assert untold is None


def test_several_models_on_this_machine_or_in_a_column_are_a_bad_job(tmp_path: Path) -> None:
    with pytest.raises(BadJob, match="one model runs on this machine at a time"):
        job("local:smollm2-135m", tmp_path / "in.csv", answer__models=["a", "b"])
    with pytest.raises(BadJob, match=r"answer\.models or columns\.model, not both"):
        job("http://127.0.0.1:9/v1", tmp_path / "in.csv", answer__models=["a", "b"], columns__model="which")


def test_a_preview_shows_each_request_of_a_row(tmp_path: Path) -> None:
    told = preview_requests(job("http://127.0.0.1:9/v1", rows(tmp_path / "in.csv", 1), answer__samples=2), 1)
    assert len(list(told)) == 3


FORM_REFUSED = Canned(status=400, body=b'{"error": {"message": "response_format is not supported"}}')


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        (["json_schema"], "json_object and the schema in the prompt are used instead"),
        (
            ["json_schema", "json_object"],
            "json_schema or json_object (HTTP 400: response_format is not supported): the schema in",
        ),
    ],
)
def test_the_first_request_finds_the_form_that_the_endpoint_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refused: list[str], said: str
) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        if seen.body.get("response_format", {}).get("type") in refused:
            return FORM_REFUSED
        return Canned(body=completion('{"label": "yes"}', usage=USAGE))

    loud = job("http://127.0.0.1:9/v1", rows(tmp_path / "in.csv", 20))
    with ChatServer(reply) as server:
        update = {"endpoint": loud.endpoint.model_copy(update={"base_url": server.url}), "this_run": ThisRun()}
        summary = run(loud.model_copy(update=update))
        assert server.arrived == 20 + len(refused)
    assert summary.rows.ok == 20
    told = capsys.readouterr().err
    assert told.count("the endpoint does not accept json_schema") == 1
    assert "HTTP 400: response_format is not supported" in told
    assert said in told


def test_a_first_row_that_is_bad_by_itself_does_not_change_the_form(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned:
        if seen.body["messages"][0]["content"].startswith("row 0"):
            return Canned(status=400, body=b'{"error": {"message": "no"}}')
        return Canned(body=completion('{"label": "yes"}', usage=USAGE))

    with ChatServer(reply) as server:
        summary = run(job(server.url, rows(tmp_path / "in.csv", 5)))
        assert server.arrived == 3 + 4
        assert all(seen.body["response_format"]["type"] == "json_schema" for seen in server.log[3:])
    assert (summary.rows.ok, summary.rows.failed) == (4, 1)
