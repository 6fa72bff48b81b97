"""Which rows are asked: the first of equals, what is not known yet, what is to be tried again; every row counted."""

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.execution.context import LocalContext
from pipeline.folder import history
from pipeline.folder.folder import make_job_folder
from pipeline.job.job import Job, ThisRun
from pipeline.planning.chains import Chains
from pipeline.planning.plan import (
    KEYS_SCHEMA,
    RENDERED_AT_ONCE,
    Plan,
    keys_hash,
    keys_path,
    make_plan,
    pending_requests,
    select_rows,
    tally_statuses,
)
from pipeline.prompts.prompts import Prompts
from pipeline.prompts.templates import Row
from pipeline.records import STATUSES, Answer, BadJob, Exit, Failure, Outcome, Request, Stopped, Summary, Tally
from pipeline.store.reader import Reader
from pipeline.store.writer import Store
from pipeline.tables.table import Table, open_table

MINIMAL = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m"}
LASTING = Failure(kind="too_long", reason="4,097 tokens")
PASSING = Failure(kind="timeout", reason="slow", lasting=False)
CUT = Answer(text="yes, bec", finish_reason="length")
OK = Answer(text="yes")


class Bench(AbstractContextManager["Bench"]):
    """A table of prompts, the store of their answers, and the plans made of both."""

    def __init__(self, folder: Path, prompts: Sequence[str | None], **job_settings: Any) -> None:
        self.folder = folder
        pl.DataFrame({"prompt": prompts}, schema={"prompt": pl.String}).write_parquet(folder / "in.parquet")
        self._settings = {**MINIMAL, **job_settings}
        self.store = Store(folder / "store")
        self.table = open_table([str(folder / "in.parquet")], folder)
        self.prompts = Prompts(self.job(), ["prompt"])

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def job(self, **this_run: Any) -> Job:
        return Job.load(["in.parquet"], "out.csv", settings=self._settings, this_run=ThisRun(**this_run))

    def request(self, prompt: str) -> Request:
        requests = self.prompts.requests({"prompt": prompt})
        assert isinstance(requests, list)
        return requests[0]

    def record(self, **outcomes: Outcome) -> None:
        context = LocalContext(self.job(), self.store, Tally())

        async def all_of_them() -> None:
            pairs = outcomes.items()
            await asyncio.gather(*(context.record(self.request(prompt), outcome) for prompt, outcome in pairs))

        asyncio.run(all_of_them())

    def plan(self, *, table: Table | None = None, **this_run: Any) -> Plan:
        with closing(Reader(self.store.folder)) as reader:
            return make_plan(self.job(**this_run), table or self.table, self.prompts, reader, self.folder)

    def asked(self, plan: Plan, table: Table | None = None) -> list[Request]:
        async def drawn() -> list[Request]:
            with closing(Reader(self.store.folder)) as reader:
                keys, chains = keys_path(self.folder), Chains(self.job(), reader)
                requests = pending_requests(table or self.table, self.prompts, plan, keys, chains)
                return [request async for request in requests]

        return asyncio.run(drawn())

    def tally(self) -> Tally:
        with closing(Reader(self.store.folder)) as reader:
            return tally_statuses(self.job(), self.folder, reader)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    with ExitStack() as open_things:
        yield lambda *prompts, **job_settings: open_things.enter_context(Bench(tmp_path, prompts, **job_settings))


def test_the_first_of_equal_rows_is_asked_and_the_others_are_equal_to_it(make: Callable[..., Bench]) -> None:
    rows = make("a", "b", "a", "a", "c", "b")
    plan = rows.plan()
    assert plan.ask.to_list() == [True, True, False, False, True, False]
    assert (plan.rows, plan.to_ask, plan.equal, plan.answered, plan.unaskable) == (6, 3, 3, 0, 0)
    assert plan.request_bytes == sum(len(rows.request(prompt).body) for prompt in "abc")


def test_what_is_answered_is_not_asked_nor_are_its_equals(make: Callable[..., Bench]) -> None:
    rows = make("a", "b", "a", "c")
    rows.record(a=OK)
    plan = rows.plan()
    assert (plan.answered, plan.to_ask, plan.equal) == (2, 2, 0)
    assert rows.asked(plan) == [rows.request("b"), rows.request("c")]


def test_answers_of_rows_that_are_gone_are_counted_as_unused(make: Callable[..., Bench]) -> None:
    rows = make("a", "b")
    rows.record(a=OK, gone=OK, failed=LASTING)
    plan = rows.plan()
    assert (plan.stored, plan.unused) == (2, 1)


def test_a_failure_that_passes_is_asked_again_and_one_that_lasts_is_not(make: Callable[..., Bench]) -> None:
    rows = make("a", "b", "c")
    rows.record(a=LASTING, b=PASSING, c=OK)
    plan = rows.plan()
    assert plan.ask.to_list() == [False, True, False]
    assert (plan.answered, plan.to_ask) == (2, 1)


@pytest.mark.parametrize(
    ("retry", "asked"),
    [
        ((), ["b"]),
        (("failed",), ["a", "b"]),
        (("truncated",), ["b", "c"]),
        (("failed", "truncated", "invalid"), ["a", "b", "c"]),
        (("ok",), ["b", "d"]),
    ],
)
def test_retry_asks_those_of_the_named_statuses_again(
    make: Callable[..., Bench], retry: tuple[str, ...], asked: list[str]
) -> None:
    rows = make("a", "b", "c", "d")
    rows.record(a=LASTING, b=PASSING, c=CUT, d=OK)
    assert rows.asked(rows.plan(retry=retry)) == [rows.request(prompt) for prompt in asked]


def test_a_row_that_cannot_be_asked_has_its_reason_and_no_request(make: Callable[..., Bench]) -> None:
    rows = make("a", None, " ", "b", None)
    plan = rows.plan()
    assert (plan.rows, plan.to_ask, plan.equal, plan.unaskable) == (5, 2, 0, 3)
    assert plan.why_unaskable == "the prompt is null"
    assert rows.asked(plan) == [rows.request("a"), rows.request("b")]
    assert rows.tally() == Tally(failed=3, pending=2)


def test_a_job_of_which_no_row_can_be_asked_is_a_bad_one(tmp_path: Path, make: Callable[..., Bench]) -> None:
    rows = make(None, "", None)
    with pytest.raises(BadJob, match=r"Not one of 3 rows can be asked. The first: the prompt is null"):
        rows.plan()
    assert not (tmp_path / "keys.part.parquet").exists()


def test_a_table_without_rows_is_planned(make: Callable[..., Bench]) -> None:
    rows = make()
    plan = rows.plan()
    assert (plan.rows, plan.to_ask, plan.answered, plan.equal, plan.unaskable) == (0, 0, 0, 0, 0)
    assert rows.asked(plan) == []
    assert rows.tally() == Tally()


def test_the_keys_of_the_rows_are_written_down(tmp_path: Path, make: Callable[..., Bench]) -> None:
    rows = make("a", None, "b", "a")
    rows.plan()
    keys = pl.read_parquet(keys_path(tmp_path))
    a, b = rows.request("a"), rows.request("b")
    assert keys.schema == KEYS_SCHEMA
    assert keys["key"].to_list() == [bytes.fromhex(a.key), None, bytes.fromhex(b.key), bytes.fromhex(a.key)]
    assert keys["bytes"].to_list() == [len(a.body), None, len(b.body), len(a.body)]
    assert keys["error"].to_list() == [None, "the prompt is null", None, None]
    assert keys["first"].to_list() == [True, False, True, False]
    assert not (tmp_path / "keys.part.parquet").exists()


def test_the_rows_of_the_last_plan_are_tallied_by_status(make: Callable[..., Bench]) -> None:
    rows = make("a", "b", "c", "d", "e", "f", "g", "a", None)
    rows.record(a=OK, b=CUT, c=LASTING, d=PASSING, e=Answer(text="", refusal="No."), f=Failure("filtered", "policy"))
    rows.plan()
    assert rows.tally() == Tally(ok=2, truncated=1, failed=3, refused=1, filtered=1, pending=1)


def test_an_answer_that_does_not_fit_is_tallied_as_invalid(make: Callable[..., Bench]) -> None:
    rows = make("a", "b", **{"answer.labels": ["yes", "no"], "answer.repairs": 0})
    rows.record(a=OK, b=Answer(text='{"label": "no"}'))
    plan = rows.plan()
    assert plan.to_ask == 0
    assert rows.tally() == Tally(ok=1, invalid=1)


@pytest.mark.parametrize(
    ("this_run", "rows"), [({}, 6), ({"limit": 2}, 2), ({"limit": 9}, 6), ({"sample": 3}, 3), ({"sample": 99}, 6)]
)
def test_a_pilot_plans_its_rows_alone(make: Callable[..., Bench], this_run: dict[str, int], rows: int) -> None:
    whole = make(*"abcdef")
    table = select_rows(whole.job(**this_run), whole.table)
    plan = whole.plan(table=table, **this_run)
    assert (plan.rows, plan.to_ask, whole.tally().rows) == (rows, rows, rows)
    asked = whole.asked(plan, table)
    in_order = [whole.request(prompt) for prompt in "abcdef"]
    assert asked == [request for request in in_order if request in asked]
    if "limit" in this_run:
        assert asked == in_order[: this_run["limit"]]


def test_a_sample_is_the_same_for_the_same_seed(make: Callable[..., Bench]) -> None:
    whole = make(*map(str, range(50)))
    drawn = [select_rows(whole.job(sample=5, seed=seed), whole.table) for seed in (1, 1, 2)]
    first, again, other = [whole.asked(whole.plan(table=table), table) for table in drawn]
    assert first == again != other


def test_answers_of_a_pilot_count_in_the_full_run(make: Callable[..., Bench]) -> None:
    whole = make(*"abcd")
    whole.record(a=OK, b=OK)
    assert whole.plan(table=whole.table.head(2)).to_ask == 0
    assert (whole.plan().answered, whole.plan().to_ask) == (2, 2)


def test_an_input_that_changes_under_the_asking_is_a_stop(tmp_path: Path, make: Callable[..., Bench]) -> None:
    rows = make("a", "b")
    plan = rows.plan()
    pl.DataFrame({"prompt": ["a", "other"]}).write_parquet(tmp_path / "in.parquet")
    with pytest.raises(Stopped, match="has changed"):
        rows.asked(plan)


PROMPTS = st.lists(st.sampled_from([None, "", "a", "b", "c", "d", "e"]), max_size=12)
OUTCOMES = st.dictionaries(st.sampled_from("abcdex"), st.sampled_from([OK, CUT, LASTING, PASSING]))
RETRY = st.sets(st.sampled_from(["failed", "truncated", "ok"])).map(lambda names: tuple(sorted(names)))


class Counted(Prompts):
    """Prompts that tell how many rows they were made of."""

    rows, said = 0, ""

    def requests(self, row: Row) -> list[Request] | Failure:
        self.rows += 1
        return super().requests({**row, "prompt": self.said + row["prompt"]})


def plan_anew(source: Path, said: str = "", this_run: ThisRun | None = None, **settings: Any) -> tuple[int, Plan]:
    """How many rows a run renders to make its plan, and the plan; the run has then begun."""
    output = source.with_name("out.csv")
    job = Job.load([source], output, settings={**MINIMAL, **settings}, this_run=this_run or ThisRun())
    make_job_folder(job.folder)
    whole = open_table(job.inputs, job.folder)
    prompts = Counted(job, ["prompt"])
    prompts.said = said
    Store(job.folder / "store").close()
    with closing(Reader(job.folder / "store")) as reader:
        plan = make_plan(job, select_rows(job, whole), prompts, reader, job.folder)
    history.record_start(job, ["run"], whole.content_hash, whole.path, keys_hash(keys_path(job.folder)))
    return prompts.rows, plan


def test_only_a_run_that_could_have_other_keys_than_the_last_renders_all_rows(tmp_path: Path) -> None:
    count, table, keys = RENDERED_AT_ONCE + 10, tmp_path / "in.csv", tmp_path / "out.csv.job" / "keys.parquet"
    pl.DataFrame({"prompt": [f"{row // 2}" for row in range(count)]}).write_csv(table)
    made, first = plan_anew(table)
    assert made == count
    known = pl.read_parquet(keys)

    made, again = plan_anew(table, **{"limits.concurrency": 7, "output.prefix": "x"})
    assert made == RENDERED_AT_ONCE
    assert (again.to_ask, again.equal, again.request_bytes) == (first.to_ask, first.equal, first.request_bytes)
    assert known.equals(pl.read_parquet(keys))

    for changed in ({"endpoint.model": "n"}, {"parameters.x": 1}, {"parameters.x": True}, {"prompt.system": "Hm."}):
        assert plan_anew(table, **changed)[0] == count, changed
    assert plan_anew(table)[0] == count
    assert plan_anew(table, this_run=ThisRun(limit=count - 1))[0] == count - 1
    assert plan_anew(table)[0] == count
    assert plan_anew(table, said="Another version says: ")[0] == RENDERED_AT_ONCE + count
    keys.write_bytes(b"cut")
    assert plan_anew(table)[0] == count
    # such as for a row whose prompt was another than planned: the keys are at fault
    history.record_end(keys.parent, Summary(Exit.NEEDS_PERSON, "", "", Tally(), Tally(), 0.0, 0.0, wrote=False))
    assert plan_anew(table)[0] == count
    assert plan_anew(table)[0] == RENDERED_AT_ONCE
    # the same bytes by another ending may be other rows
    assert plan_anew(table.rename(tmp_path / "in.tsv"))[0] == count
    pl.DataFrame({"prompt": [f"{row // 3}" for row in range(count)]}).write_csv(tmp_path / "in.tsv")
    assert plan_anew(tmp_path / "in.tsv")[0] == count


@settings(max_examples=15, deadline=None)
@given(prompts=PROMPTS, outcomes=OUTCOMES, retry=RETRY)
def test_every_row_is_counted_once_and_what_is_asked_is_what_is_not_known(
    prompts: list[str | None], outcomes: dict[str, Outcome], retry: tuple[str, ...]
) -> None:
    with tempfile.TemporaryDirectory() as folder, Bench(Path(folder), prompts) as rows:
        rows.record(**outcomes)
        askable = [prompt for prompt in prompts if prompt]
        again = {prompt for prompt, each in outcomes.items() if each is PASSING or each.status in retry}
        expected = [prompt for prompt in dict.fromkeys(askable) if prompt not in outcomes or prompt in again]
        if prompts and not askable:
            with pytest.raises(BadJob):
                rows.plan(retry=retry)
            return
        plan = rows.plan(retry=retry)
        assert plan.answered + plan.to_ask + plan.equal + plan.unaskable == plan.rows == len(prompts)
        assert rows.asked(plan) == [rows.request(prompt) for prompt in expected]
        assert plan.request_bytes == sum(len(rows.request(prompt).body) for prompt in expected)
        assert plan.stored == sum(isinstance(each, Answer) for each in outcomes.values())
        told = rows.tally()
        statuses = [outcomes[prompt].status if prompt in outcomes else "pending" for prompt in askable]
        statuses += ["failed"] * (len(prompts) - len(askable))
        assert [getattr(told, status) for status in STATUSES] == [statuses.count(status) for status in STATUSES]
