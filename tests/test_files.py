"""The job folder's files: private whatever the umask, or the group's where the job file says so."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
from chat_server import ChatServer, answer_to
from children import child, on_host, pipe

from pipeline.files import (
    file_mode,
    is_group_shared,
    make_private_folder,
    new_draft,
    open_private,
    remove_dead_drafts,
    share_with_group,
)

LAB, ANN, BEN = 54_321, 54_322, 54_323

AS_USER = """
import os, sys
from pathlib import Path
from pipeline.cli import main

def do(*words):
    return main.main(list(words), standalone_mode=False)

uid, gid, mask, url, warm, lab, *words = sys.argv[1:]
os.chdir(warm)
Path("in.csv").write_text("q\\n1\\n")
# all that is imported late is imported now: another user may not read this interpreter's files
do("run", "in.csv", "-o", "out.csv", "--base-url", url, "-m", "m", "-p", "{{ q }}", "--limit", "1", "-q")
do("show", "out.csv")
do("export", "out.csv", "-o", "other.parquet")
os.setgroups([int(gid)])
os.setgid(int(gid))
os.setuid(int(uid))
os.umask(int(mask, 8))
os.chdir(lab)
sys.exit(do(*words))
"""


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder.parent)): stat.S_IMODE(path.stat().st_mode) for path in chain(folder)}


def chain(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


def command(url: str, *more: str) -> list[str]:
    line = [sys.executable, "-m", "pipeline", "run", "in.csv", "-o", "out.csv", "--base-url", url]
    return [*line, "-m", "m", "-p", "Answer {{ q }}", *more]


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_every_file_of_a_job_is_private_whatever_the_umask_and_its_output_obeys_it(
    tmp_path: Path, server: ChatServer, mask: int
) -> None:
    (tmp_path / "in.csv").write_text("q\n1\n2\n")
    for more in ([], ["--limit", "1"]):
        done = subprocess.run(command(server.url, *more), cwd=tmp_path, umask=mask, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "out.csv.job"
    found = modes(folder)
    files = {path.name for path in chain(folder) if path.is_file()}
    assert files >= {"lock", "keys.parquet", "log.txt", "history.jsonl", "summary.json", ".gitignore", "cache.db"}
    assert any(name.startswith("input-") for name in files)
    assert {found[str(p.relative_to(tmp_path))] for p in chain(folder) if p.is_file()} == {0o600}
    assert {found[str(p.relative_to(tmp_path))] for p in chain(folder) if p.is_dir()} == {0o700}
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o666 & ~mask


def test_the_log_of_a_model_on_this_machine_is_private_too(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        os.close(open_private(tmp_path / "model.log", os.O_RDWR | os.O_APPEND))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.log").stat().st_mode) == 0o600


def test_a_shared_job_is_its_groups_whatever_the_umask(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "in.csv").write_text("q\n1\n2\n")
    line = command(server.url, "--set", "output.shared=true")
    done = subprocess.run(line, cwd=tmp_path, umask=0o077, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out.csv.job"
    assert {stat.S_IMODE(p.stat().st_mode) for p in chain(folder) if p.is_file()} == {0o660}
    assert {stat.S_IMODE(p.stat().st_mode) for p in chain(folder) if p.is_dir()} == {0o2770}


def test_a_job_is_shared_later_with_all_that_it_holds(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "in.csv").write_text("q\n1\n2\n")
    assert subprocess.run(command(server.url, "-q"), cwd=tmp_path, check=False).returncode == 0
    line = command(server.url, "-q", "--set", "output.shared=true")
    assert subprocess.run(line, cwd=tmp_path, check=False).returncode == 0
    assert set(modes(tmp_path / "out.csv.job").values()) == {0o660, 0o2770}
    assert server.arrived == 2


def test_a_folder_that_its_group_may_enter_but_that_was_not_shared_keeps_its_files_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)
    assert not is_group_shared(tmp_path)
    assert file_mode(tmp_path) == 0o600
    make_private_folder(tmp_path / "store")
    share_with_group(tmp_path)
    assert modes(tmp_path) == {tmp_path.name: 0o2770, f"{tmp_path.name}/store": 0o2770}
    make_private_folder(tmp_path / "plan.new")
    assert is_group_shared(tmp_path / "plan.new")


@pytest.fixture
def lab() -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("only root can act as two other users")
    folder = Path(tempfile.mkdtemp())  # pytest's own are for one user alone
    os.chown(folder, 0, LAB)
    folder.chmod(0o2775)
    yield folder
    shutil.rmtree(folder)


def test_colleagues_of_one_group_go_on_with_each_others_job(lab: Path, tmp_path: Path, server: ChatServer) -> None:
    (lab / "in.csv").write_text("q\n" + "".join(f"{n}\n" for n in range(30)))

    def act(uid: int, *words: str) -> str:
        warm = tmp_path / f"{uid}-{words[0]}-{len(list(tmp_path.iterdir()))}"
        warm.mkdir()
        state = lab / f"state-{uid}"
        if not state.exists():
            state.mkdir(mode=0o700)
            os.chown(state, uid, LAB)
        line = [sys.executable, "-c", AS_USER, str(uid), str(LAB), "022", server.url, str(warm), str(lab), *words]
        home = {**os.environ, "XDG_STATE_HOME": str(state)}
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, env=home)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    asking = ("run", "in.csv", "-o", "out.csv", "--base-url", server.url, "-m", "m")
    asking += ("-p", "Answer {{ q }}", "--set", "output.shared=true")
    act(ANN, *asking, "--limit", "10")
    assert "10 answered before" in act(BEN, *asking)
    folder = lab / "out.csv.job"
    assert {path.stat().st_uid for path in chain(folder)} == {ANN, BEN}
    assert "→ re:" in act(ANN, "show", "out.csv")
    act(BEN, "export", "out.csv", "-o", "ben.parquet")
    with (lab / "in.csv").open("a") as file:
        file.write("30\n")
    assert "1 to ask" in act(ANN, "resume", "out.csv")
    prompts = [seen.prompt for seen in server.log if seen.prompt.startswith("Answer")]
    assert sorted(prompts) == sorted(f"Answer {n}" for n in range(31))
    out = pl.read_csv(lab / "out.csv", infer_schema=False)
    assert out["answer"].to_list() == [answer_to(f"Answer {n}") for n in range(31)]
    assert {path.stat().st_gid for path in chain(folder)} == {LAB}
    assert set(modes(folder).values()) == {0o660, 0o2770}


MAKES_A_DRAFT = """
import os, sys
from pathlib import Path
from pipeline.files import new_draft

with new_draft(Path(sys.argv[1])) as draft:
    print(draft, flush=True)
    input()
    os._exit(9)
"""


def left_by_another_process(path: Path, where: Sequence[str] = ()) -> Path:
    """The draft that a process leaves which is killed while it writes."""
    with child(MAKES_A_DRAFT, path, where=where) as process:
        return Path(pipe(process.stdout).readline().strip())


def test_a_draft_is_removed_once_its_process_is_dead_and_not_before(tmp_path: Path) -> None:
    with child(MAKES_A_DRAFT, tmp_path / "out.csv") as process:
        draft = Path(pipe(process.stdout).readline().strip())
        remove_dead_drafts(tmp_path)
        assert draft.exists()
    remove_dead_drafts(tmp_path, "other.csv")
    assert draft.exists()
    remove_dead_drafts(tmp_path, "out.csv")
    assert not draft.exists()


def test_a_draft_whose_process_number_was_given_again_is_removed(tmp_path: Path) -> None:
    with new_draft(tmp_path / "out.csv") as mine:
        kernel, machine, maker = mine.name.split(".")[3:6]
        earlier = mine.with_name(f".out.csv.{kernel}.{machine}.{maker}0.01234567.tmp")
        earlier.touch()
        remove_dead_drafts(tmp_path)
        assert mine.exists()
        assert not earlier.exists()


def test_a_draft_of_another_host_stays(tmp_path: Path) -> None:
    draft = left_by_another_process(tmp_path / "out.csv", on_host("elsewhere", tmp_path / "spare", tmp_path))
    os.utime(draft, (0, 0))
    remove_dead_drafts(tmp_path)
    assert draft.exists()


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="when this system started is not known")
def test_a_draft_from_before_this_host_was_started_again_is_removed_and_a_later_one_stays(tmp_path: Path) -> None:
    with new_draft(tmp_path / "out.csv") as mine:
        machine, maker = mine.name.split(".")[4:6]
    old, later = (tmp_path / f".out.csv.{'0' * 8}.{machine}.{maker}.{n}1234567.tmp" for n in (0, 1))
    old.touch()
    later.touch()
    os.utime(old, (0, 0))
    remove_dead_drafts(tmp_path)
    assert (old.exists(), later.exists()) == (False, True)


@pytest.mark.parametrize("name", ["n" * 255, "写" * 85, "é" * 127 + "n", "👩‍💻" * 22, "n"])
def test_the_draft_of_any_name_fits_into_every_file_system(tmp_path: Path, name: str) -> None:
    with new_draft(tmp_path / name) as draft:
        assert len(os.fsencode(draft.name)) <= 143, "the limit of eCryptfs, in bytes"
        assert draft.exists()
    remove_dead_drafts(tmp_path)
    left = left_by_another_process(tmp_path / name)
    remove_dead_drafts(tmp_path, name)
    assert not left.exists()


def test_leftovers_that_may_not_be_removed_hinder_nobody(lab: Path) -> None:
    lab.chmod(0o3777)
    draft = left_by_another_process(lab / "out.csv")
    script = "import os, sys\nfrom pathlib import Path\nfrom pipeline.files import new_draft, remove_dead_drafts\n"
    # all that is imported late is imported now: another user may not read this interpreter's files
    script += "with new_draft(Path(sys.argv[1], 'n')): remove_dead_drafts(Path(sys.argv[1]), 'n')\n"
    script += f"os.setuid({BEN})\nremove_dead_drafts(Path(sys.argv[1]))"
    assert subprocess.run([sys.executable, "-c", script, str(lab)], check=False).returncode == 0
    assert draft.exists()
