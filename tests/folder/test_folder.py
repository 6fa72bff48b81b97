"""A job folder is made private, is never mistaken, and is removed if it was made in vain."""

from pathlib import Path

import pytest
from stores import mode

from pipeline.folder.folder import make_job_folder
from pipeline.records import BadJob


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
