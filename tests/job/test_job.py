"""A job as it is run, and the job files that are shipped."""

from pathlib import Path

import pytest
from job_files import ENDPOINT, MINIMAL

from pipeline.job.job import Job, ThisRun, default_job_folder, settings_id
from pipeline.records import BadJob
from pipeline.runs.preview import preview_requests

ROOT = Path(__file__).parents[2]


def test_every_shipped_config_is_a_job() -> None:
    configs = sorted((ROOT / "configs").glob("*.toml"))
    assert {path.stem for path in configs} >= {
        "amethyst", "gemini", "ollama", "openai", "openai-batch", "openrouter", "reviews-local", "vllm",
        "sentiment", "topics", "entities", "grading", "translation", "pictures",
    }  # fmt: skip
    for path in configs:
        assert path.read_text("utf-8").startswith("#:schema ./job.schema.json\n"), path
        Job.load(["in.csv"], "out.csv", config=path)


@pytest.mark.parametrize(
    ("config", "table"),
    [
        ("sentiment", "reviews.csv"),
        ("topics", "reviews.csv"),
        ("entities", "letters.csv"),
        ("grading", "essays.csv"),
        ("translation", "reviews.csv"),
        ("pictures", "pictures.csv"),
    ],
)
def test_every_example_of_annotation_can_be_asked_of_its_sample(config: str, table: str) -> None:
    job = Job.load([ROOT / "sample_data" / table], config=ROOT / "configs" / f"{config}.toml")
    shown = "\n".join(preview_requests(job, 2))
    assert shown.count('"messages"') == 2
    assert "cannot be asked" not in shown
    assert '"strict": true' in shown or config == "translation"


def test_a_job_folder_is_the_run_s_or_the_job_file_s_or_the_output_s(tmp_path: Path) -> None:
    (tmp_path / "job.toml").write_text(f'{ENDPOINT}[output]\njob_dir = "kept"\n')
    job = Job.load(["in.csv"], "o/out.csv", settings=MINIMAL)
    assert job.folder == default_job_folder(Path("o/out.csv")) == Path("o/out.csv.job")
    kept = Job.load(["in.csv"], "o/out.csv", config=tmp_path / "job.toml")
    assert kept.folder == tmp_path / "kept"
    own = Job.load(["in.csv"], "o/out.csv", config=tmp_path / "job.toml", this_run=ThisRun(job_dir=Path("own")))
    assert own.folder == Path("own")


def test_a_job_without_an_output_says_how_to_name_one() -> None:
    job = Job.load(["in.csv"], settings=MINIMAL)
    for attribute in ("folder", "output_path"):
        with pytest.raises(BadJob, match="name one with -o"):
            getattr(job, attribute)


def test_a_run_has_one_kind_of_pilot() -> None:
    with pytest.raises(BadJob, match="--limit or --sample, not both"):
        ThisRun(limit=1, sample=1)


def test_the_settings_id_never_changes() -> None:
    # stored answers hold it: the column `settings` says by it which answers belong together
    seen = Job.load(["in.csv"], settings={**MINIMAL, "prompt.template": "Naïve {{ q }}"}).seen_by_model()
    assert settings_id(seen) == "492ed2ba"
