"""Input files are found, recognised and fingerprinted; a name or an encoding that is wrong is explained."""

import gzip
import hashlib
import os
import shlex
import subprocess
from pathlib import Path

import pytest
from tables_support import CITIES, in_a_process, opened, refusal_of, whole, write, written

from pipeline.records import BadJob
from pipeline.tables.open import open_table


@pytest.mark.parametrize("where", ["header", "cell"])
def test_another_encoding_is_refused_with_line_offset_and_remedy(tmp_path: Path, where: str) -> None:
    text = "caf\xe9,b\n1,2\n" if where == "header" else "a,b\n1,2\ncaf\xe9,4\n"
    message = refusal_of(tmp_path / "it's.csv", text.encode("latin1"))
    place = "it's.csv:1: byte 0xe9 at offset 3" if where == "header" else "it's.csv:3: byte 0xe9 at offset 11"
    assert place in message
    old, new = (shlex.quote(str(tmp_path / name)) for name in ("it's.csv", "it's-utf8.csv"))
    assert f"iconv -f latin1 -t utf-8 {old} > {new}" in message


def test_utf_16_is_refused_with_its_remedy(tmp_path: Path) -> None:
    assert "iconv -f utf-16" in refusal_of(tmp_path / "a.csv", "a,b\n1,2\n".encode("utf-16"))


def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(("a,b\n" + "".join(f"{at},{at * at}\n" for at in range(9_999))).encode())
    assert "file is complete" in refusal_of(tmp_path / "a.csv.gz", packed[:-2_000])


def test_an_input_that_is_no_readable_file_is_refused_with_a_remedy(tmp_path: Path) -> None:
    written(tmp_path / "reviews.csv", "a\n1\n")
    assert f"Did you mean {tmp_path / 'reviews.csv'}?" in refusal_of(tmp_path / "review.csv")
    assert "no file matches this pattern" in refusal_of(tmp_path / "*.tsv")
    assert "is a folder" in refusal_of(tmp_path)
    assert "Use one of .parquet, .csv" in refusal_of(tmp_path / "a.docx", "x")
    assert "a.csv is empty" in refusal_of(tmp_path / "a.csv", "")
    assert "cannot be read as parquet" in refusal_of(tmp_path / "a.parquet", b"PAR1" + b"x" * 99)
    assert "cannot be read as arrow" in refusal_of(tmp_path / "a.arrow", b"ARROW1" + b"x" * 99)
    with pytest.raises(BadJob, match=r"The folder .*nowhere does not exist either"):
        opened(tmp_path / "nowhere" / "a.csv", tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that opens and does not read")
def test_a_file_that_opens_but_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to("/proc/self/mem")
    assert "a.csv cannot be read" in refusal_of(tmp_path / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a.csv", "a\n1\n").chmod(0)
    assert "a.csv cannot be read: Permission denied" in refusal_of(tmp_path / "a.csv")


FROM_STDIN = """
import sys
from pathlib import Path
from pipeline.tables import open_table
table = open_table(["-"], Path(sys.argv[1]))
print([row for frame in table.slices() for row in frame.rows()], table.content_hash)
"""


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.ndjson", "a.jsonl.zst", "a.parquet", "a.arrow"])
def test_standard_input_is_read_in_the_format_that_its_bytes_show(tmp_path: Path, folder: Path, name: str) -> None:
    path = write(CITIES, tmp_path / name)
    done = in_a_process(FROM_STDIN, folder, stdin=path.read_bytes())
    assert done.stdout.decode().strip() == f"{CITIES.rows()} {opened(path, tmp_path).content_hash}"
    assert [entry.name[:6] for entry in folder.iterdir()] == ["input-"], "the copy of standard input is gone"


def test_an_error_in_standard_input_names_it(folder: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        in_a_process(FROM_STDIN, folder, stdin=b"a,b\n1,2\n3\n")
    assert "BadJob: standard input:3: 1 cells" in failed.value.stderr.decode()
    assert not list(folder.iterdir())


def test_the_content_hash_is_that_of_the_files_bytes_in_order(tmp_path: Path, folder: Path) -> None:
    parts = [written(tmp_path / "1.csv", "a\n1\n"), written(tmp_path / "2.csv", "a\n2\n")]
    table = open_table([str(part) for part in parts], folder)
    assert table.content_hash == hashlib.sha256(b"a\n1\na\n2\n").hexdigest()
    assert open_table([str(part) for part in reversed(parts)], folder).content_hash != table.content_hash


def test_the_same_bytes_under_another_suffix_are_another_snapshot(tmp_path: Path, folder: Path) -> None:
    text = "a\tb,c\n1\t2,3\n"
    assert whole(opened(written(tmp_path / "a.csv", text), folder)).columns == ["a\tb", "c"]
    assert whole(opened(written(tmp_path / "a.tsv", text), folder)).columns == ["a", "b,c"]
