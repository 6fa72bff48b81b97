"""The batch files of a run: written, opened, noted and forgotten."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from pipeline import Job
from pipeline.execution.batch.files import BatchLine, read_lines
from pipeline.execution.batch.state import BatchState
from pipeline.execution.local_context import LocalContext
from pipeline.records import LearnedLimits, Request, Tally
from pipeline.store.notes import BATCHES, BatchFile, OpenBatches, read_open_batches
from pipeline.store.reader import Reader
from pipeline.store.writer import Store


@pytest.fixture
def state(tmp_path: Path) -> Iterator[BatchState]:
    settings = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m", "run.batch_requests": 2}
    job = Job.load(["in.csv"], tmp_path / "out.csv", settings=settings)
    (job.folder / "batches").mkdir(parents=True)
    with closing(Store(job.folder / "store")) as store, closing(Reader(job.folder / "store")) as reader:
        yield BatchState(job, LocalContext(job, store, Tally(), reader=reader))


def noted(state: BatchState) -> OpenBatches:
    return read_open_batches(state.context.read_note)


def test_requests_are_written_to_files_of_one_model_and_a_limited_number(state: BatchState) -> None:
    for key, model in [("a", ""), ("b", "n"), ("c", ""), ("d", "")]:
        state.add(BatchLine(Request(key, b"{}", model=model)))
    assert len(state.ready) == 1
    state.close_writers()
    keys = [[line.request.key for line in read_lines(state.path(batch_file))] for batch_file in state.ready]
    assert sorted(keys) == [["a", "c"], ["b"], ["d"]]


def test_an_open_batch_is_noted_until_it_is_forgotten(state: BatchState) -> None:
    state.add(BatchLine(Request("a", b"{}")))
    state.close_writers()
    batch_file = state.ready.popleft()

    async def open_and_forget() -> None:
        await state.note(batch_file)
        assert noted(state).sheets == (batch_file,)
        await state.forget(batch_file)

    asyncio.run(open_and_forget())
    assert noted(state).sheets == ()
    assert state.context.read_note(BATCHES) is not None
    assert not state.path(batch_file).exists()


def test_a_batch_file_that_is_taken_back_loses_its_ids_and_its_reservation(state: BatchState) -> None:
    sent = BatchFile("f.jsonl", "m", requests=3, size_bytes=40, reserved=0.5, file_id="file-1", form=1)
    state.context.budget.reserved = 0.5

    async def open_and_take_back() -> None:
        await state.note(sent)
        await state.return_to_ready(sent)

    asyncio.run(open_and_take_back())
    assert list(state.ready) == [BatchFile("f.jsonl", "m", requests=3, size_bytes=40)]
    assert (state.context.budget.reserved, noted(state).sheets) == (0.0, ())


def test_the_progress_text_counts_batches_requests_and_what_is_not_sent(state: BatchState) -> None:
    state.open = {name: BatchFile(name, "m", requests=1_000, done=600) for name in ("a", "b")}
    assert state.progress_text() == "2 batches with the provider, 1,200 of 2,000 requests done"
    del state.open["b"]
    state.ready.append(BatchFile("c", "m", requests=5_000))
    text = "1 batch with the provider, 600 of 1,000 requests done, 5,000 more not sent yet"
    assert state.progress_text() == text


def test_what_a_live_run_found_out_is_sent_from_the_first_batch_on(tmp_path: Path) -> None:
    settings = {"endpoint.base_url": "http://127.0.0.1:9/v1", "endpoint.model": "m", "answer.labels": ["a", "b"]}
    job = Job.load(["in.csv"], tmp_path / "out.csv", settings=settings)
    body = b'{"model":"m","messages":[{"role":"user","content":"q"}],"max_tokens":9}'
    with closing(Store(tmp_path / "store")) as store:
        context = LocalContext(job, store, Tally())
        context.save_learned("m", LearnedLimits(response_format="json_object", respelled="max_tokens"))
        sent = msgspec.json.decode(BatchState(job, context).encode(Request("a", body)).body)
    assert (sent["max_completion_tokens"], sent["response_format"]) == (9, {"type": "json_object"})
    assert "max_tokens" not in sent
