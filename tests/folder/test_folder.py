"""A job folder is private; a folder with other files is refused; one made for a bad job is removed again."""

from pathlib import Path

import pytest
from stores import mode

from pipeline.files import SHARED
from pipeline.folder.folder import job_folder, make_job_folder
from pipeline.folder.lock import lock_holder
from pipeline.records import BadJob, Exit, Stopped

A_START = (
    b'{"type":"began","at":"2026-11-22T03:10:00Z","user":"ann","host":"node7","pid":4,"version":"1","command":null,'
    b'"directory":"/","inputs":[],"input_hash":"","table":"","keys_hash":"","output":"","settings":{},'
    b'"seen_by_model":{}}\n'
)


def fail_inside(folder: Path, error: Exception) -> None:
    with pytest.raises(type(error)), job_folder(folder, shared=False):
        raise error


def test_the_job_folder_ignores_itself_and_an_old_one_is_left_as_it_is(tmp_path: Path) -> None:
    make_job_folder(tmp_path / "deep" / "new")
    assert (tmp_path / "deep" / "new" / ".gitignore").read_text() == "*\n"
    make_job_folder(tmp_path / "deep" / "new")
    mine = tmp_path / "mine"
    mine.mkdir(mode=0o755)
    (mine / "code.py").touch()
    make_job_folder(mine)
    assert [path.name for path in mine.iterdir()] == ["code.py"]
    assert mode(mine) == 0o755
    with pytest.raises(BadJob, match="--job-dir"):
        make_job_folder(mine / "code.py")


def test_a_shared_folder_is_its_groups_also_if_it_was_there_before(tmp_path: Path) -> None:
    make_job_folder(tmp_path / "job")
    assert mode(tmp_path / "job") == 0o700
    make_job_folder(tmp_path / "job", shared=True)
    assert mode(tmp_path / "job") == SHARED
    assert mode(tmp_path / "job" / ".gitignore") == 0o660


def test_the_folder_is_held_for_the_block_and_free_after_it(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with job_folder(folder, shared=False):
        holder = lock_holder(folder)
        assert holder is not None
        assert holder.alive
        with pytest.raises(Stopped) as refused, job_folder(folder, shared=False):
            pass
        assert refused.value.exit_code == Exit.LOCKED
    assert lock_holder(folder) is None


@pytest.mark.parametrize("name", ["thesis.docx", ".git", "log.txt"])
def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(BadJob, match=r"holds other files.*--job-dir"), job_folder(tmp_path, shared=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("names", [[], [".gitignore"], ["lock"], ["history.jsonl", "mine.txt"]])
def test_an_empty_folder_and_one_in_which_a_run_has_begun_are_taken(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).touch()
    with job_folder(tmp_path, shared=False):
        pass


def test_a_folder_made_for_a_bad_job_is_removed_again(tmp_path: Path) -> None:
    fail_inside(tmp_path / "job", BadJob("no such column"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_before_a_bad_job_stays(tmp_path: Path) -> None:
    (tmp_path / "job").mkdir()
    fail_inside(tmp_path / "job", BadJob("no such column"))
    assert (tmp_path / "job").exists()


def test_a_folder_in_which_a_run_has_begun_is_never_removed(tmp_path: Path) -> None:
    folder = tmp_path / "job"

    def begin_and_fail() -> None:
        with job_folder(folder, shared=False):
            (folder / "history.jsonl").write_bytes(A_START)
            raise BadJob("no such column")

    with pytest.raises(BadJob):
        begin_and_fail()
    assert (folder / "history.jsonl").read_bytes() == A_START


def test_any_other_error_leaves_the_folder_with_all_that_is_in_it(tmp_path: Path) -> None:
    fail_inside(tmp_path / "job", Stopped("the disk is full"))
    assert (tmp_path / "job").exists()
