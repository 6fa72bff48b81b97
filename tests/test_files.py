"""The job folder's files: private whatever the umask, or the group's where the job file says so."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from chat_server import ChatServer, answer_to

from pipeline.files import file_mode, is_group_shared, make_private_folder, open_private, share_with_group

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
