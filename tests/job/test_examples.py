"""Reading the file of example rows."""

from pathlib import Path

import pytest
from job_files import ENDPOINT, complaint, job_from


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("e.csv", 'review,label\n"Fine, really.",yes\nBad.,no\nHm.,\n'),
        ("e.tsv", "review\tlabel\nFine, really.\tyes\nBad.\tno\nHm.\t\n"),
        (
            "e.ndjson",
            (
                '{"review": "Fine, really.", "label": "yes"}\n{"review": "Bad.", "label": "no"}\n'
                '{"review": "Hm.", "label": null}\n'
            ),
        ),
    ],
)
def test_examples_are_read_relative_to_the_job_file(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    job = job_from(f'{ENDPOINT}[prompt]\ntemplate = "x"\nexamples = "{file}"\n', tmp_path)
    assert job.prompt.example_rows == [
        {"review": "Fine, really.", "label": "yes"},
        {"review": "Bad.", "label": "no"},
        {"review": "Hm.", "label": None},
    ]
    assert job.seen_by_model()["prompt.examples"] == job.prompt.example_rows


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("none.csv", None, "no such file of examples"),
        ("e.parquet", "PAR1", "examples are read from"),
        ("e.csv", "review,label\n", "no examples"),
        ("e.csv", "review\na,b\n", "no examples"),
        ("e.ndjson", "{oops}\n", "cannot be read"),
        ("e.ndjson", "[1]\n", "no examples"),
    ],
)
def test_a_file_without_examples_is_reported(tmp_path: Path, file: str, text: str | None, words: str) -> None:
    if text is not None:
        (tmp_path / file).write_text(text)
    assert words in complaint(f'{ENDPOINT}[prompt]\ntemplate = "x"\nexamples = "{file}"\n', tmp_path)
