"""A job file is written from a table's columns: it is valid as it stands, and nothing is written over."""

from pathlib import Path

import polars as pl
import pytest

from pipeline import BadJob, Job
from pipeline.prompts.prompts import Prompts
from pipeline.records import Failure
from pipeline.runs.init import guess_columns, write_job_file
from pipeline.tables.open import open_table

REVIEWS = Path(__file__).parent.parent.parent / "sample_data" / "reviews.csv"


def made(folder: Path, frame: pl.DataFrame, **given: str) -> Job:
    """The job of a file made for a table, whose every row can be asked."""
    source = folder / "in.parquet"
    frame.write_parquet(source)
    write_job_file([str(source)], folder / "job.toml", **given)
    job = Job.load([source], folder / "out.csv", config=folder / "job.toml")
    prompts = Prompts(job, frame.columns)
    assert all(not isinstance(prompts.requests(row), Failure) for row in frame.iter_rows(named=True))
    return job


def test_the_longest_text_is_asked_of_and_the_few_words_of_a_gold_column_are_the_labels(tmp_path: Path) -> None:
    write_job_file([str(REVIEWS)], tmp_path / "job.toml")
    job = Job.load([REVIEWS], tmp_path / "out.csv", config=tmp_path / "job.toml")
    assert job.answer.labels == ["negative", "positive"]
    assert job.prompt.template is not None
    assert "{{ review }}" in job.prompt.template
    assert "gold" not in job.prompt.template
    assert job.endpoint.api_key_env == "OPENAI_API_KEY"
    assert job.limits.max_cost == 5
    assert "id, product, review, gold" in (tmp_path / "job.toml").read_text("utf-8")


def test_a_model_on_this_machine_needs_neither_key_nor_name(tmp_path: Path) -> None:
    job = made(tmp_path, pl.DataFrame({"review": ["Lovely."]}), base_url="local:smollm2-135m")
    assert (job.endpoint.is_local, job.endpoint.model, job.limits.max_cost) == (True, "", None)


def test_a_column_of_chats_or_of_prompts_is_taken_as_it_is(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "Hello"}]
    for number, (frame, column) in enumerate(
        (
            (pl.DataFrame({"talk": [chat], "note": ["a long note beside it"]}), "talk"),
            (pl.DataFrame({"messages": ['[{"role": "user", "content": "Hello"}]']}), "messages"),
            (pl.DataFrame({"prompt": ["Say hello."], "a_longer_text": ["of which nothing is asked here"]}), "prompt"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        job = made(folder, frame)
        assert (job.prompt.template, job.prompt.column) == (None, column)


@pytest.mark.parametrize(
    "name", ["odd name", 'quo"ted', "back\\slash", "for", "none", 'three"""', "ünï", "{{ x }}", "#"]
)
def test_any_name_of_a_column_and_any_label_makes_a_valid_file(tmp_path: Path, name: str) -> None:
    words = ['a "b" \\ """', "c\n# d", "e"] * 4
    job = made(tmp_path, pl.DataFrame({name: ["some text"] * 12, "gold": words}))
    assert job.answer.labels is not None
    assert set(job.answer.labels) == set(words)


def test_what_the_columns_hold_is_guessed_by_their_cells_too() -> None:
    rows = pl.DataFrame({
        "photo": ["a.jpg", "https://x.org/b.png?s=1", None, "c.webp"],
        "label": ["a", "b", "c", "d"],  # as many as rows: no classes
        "text": ["one", "two", None, "four"],
        "n": [1, 2, 3, 4],
    })  # fmt: skip
    guess = guess_columns(rows)
    assert (guess.image, guess.labels, guess.text, guess.chat) == ("photo", [], "text", None)
    assert guess_columns(pl.DataFrame({"n": [1]})).text is None


def test_a_column_that_seems_to_name_images_is_offered_as_such(tmp_path: Path) -> None:
    made(tmp_path, pl.DataFrame({"photo": ["a.jpg", "b.png"], "text": ["one", "two"]}))
    path, offer = tmp_path / "job.toml", '# images = ["photo"]'
    text = path.read_text("utf-8")
    assert offer in text
    path.write_text(text.replace(offer, offer.removeprefix("# ")), "utf-8")
    assert Job.load([tmp_path / "in.parquet"], config=path).prompt.images == ["photo"]


def test_nothing_is_written_over_and_a_wrong_input_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("mine")
    with pytest.raises(BadJob, match="is there already, and was left as it is"):
        write_job_file([str(REVIEWS)], path)
    assert path.read_text() == "mine"
    with pytest.raises(BadJob, match="no such file"):
        write_job_file([str(tmp_path / "nothing.csv")], tmp_path / "other.toml")
    assert not (tmp_path / "other.toml").exists()
    assert open_table([str(REVIEWS)], tmp_path).rows == 60


def test_a_model_gets_the_parameters_that_it_takes(tmp_path: Path) -> None:
    given: list[dict[str, str]] = [
        {},
        {"model": "gpt-x"},
        {"base_url": "http://127.0.0.1:9/v1"},
        {"base_url": "local:m"},
    ]
    jobs = []
    for number, asked in enumerate(given):
        (folder := tmp_path / str(number)).mkdir()
        jobs.append(made(folder, pl.DataFrame({"review": ["Lovely."]}), **asked))
    assert [(job.endpoint.model, job.parameters) for job in jobs] == [
        ("gpt-6-luna", {"reasoning_effort": "none", "max_completion_tokens": 256}),
        ("gpt-x", {"max_tokens": 256}),
        ("gpt-6-luna", {"max_tokens": 256}),
        ("", {"temperature": 0, "max_tokens": 256}),
    ]
