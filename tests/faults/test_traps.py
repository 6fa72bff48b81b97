"""Inputs that other programs spoil: the prompt is what the file says, the columns come back, each answer at its row."""

import csv
import datetime as dt
import decimal
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import builders
import polars as pl
import pytest
from chat_server import Canned, ChatServer, Seen, answer_to, completion
from polars.testing import assert_frame_equal

from pipeline import BadJob, Job, run
from pipeline.records import Exit
from pipeline.results.export import export_table


def job(server: ChatServer, source: Path, output: Path, **settings: Any) -> Job:
    return builders.job(server.url, source, output, **{"prompt__template": None, **settings})


def prompts(server: ChatServer) -> set[str]:
    return {seen.prompt for seen in server.log}


def csv_cells(content: bytes) -> list[list[str]]:
    """Every cell of a CSV as Python's own reader has it."""
    return [row for row in csv.reader(io.StringIO(content.decode(), newline="")) if row]


CELLS = {
    "leading zeros": "007",
    "an exponent": "1e5",
    "not a number": "NaN",
    "the word null": "null",
    "the word NA": "NA",
    "the word None": "None",
    "a truth": "true",
    "a date": "01/02/03",
    "a day that is none": "2026-02-30",
    "an integer past 2^53": "9007199254740993",
    "an integer past 2^63": "9223372036854775808",
    "a fraction of many digits": "0.1000000000000000055511151231257827",
    "trailing blanks": "a  ",
    "leading blanks": "  a",
    "a line break": "a\nb",
    "a carriage return and a line break": "a\r\nb",
    "a carriage return": "a\rb",
    "a NUL": "a\0b",
    "quotes": 'say "no", twice ""',
    "a separator": "a,b;c\td",
    "an emoji of several": "\U0001f469\u200d\U0001f52c\U0001f3f4\U000e0067\U000e0062\U000e007f",
    "combining marks": "e\u0301 \u00e9",
    "a line separator": "a\u2028b\x0bc\x1cd\x85e",
    "marks of direction": "a\u202eb\u2066",
    "a mark of byte order": "\ufeffa",
    "a formula": "=cmd|' /C calc'!A0",
    "a sum": "+1-1",
    "a name": "@SUM(A1)",
    "a formula after a tab": "\t=1",
    "a formula after a carriage return": "\r=1",
    "a comment": "# not one",
    "a backslash": "a\\",
    "a template": "{{ 7 * 7 }}{% raw %}",
    "a format": "%s {0}",
    "an escape": "\x1b[2J\x1b]8;;x\x1b\\",
}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet", "ndjson", "arrow"])
def test_every_cell_is_asked_and_comes_back_as_it_stands_in_the_csv(
    tmp_path: Path, server: ChatServer, suffix: str
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [["id", "q"], *([f"{n:03}", c] for n, c in enumerate(CELLS.values()))]
    )
    (tmp_path / "in.csv").write_text(text.getvalue(), "utf-8", newline="")
    summary = run(job(server, tmp_path / "in.csv", tmp_path / f"out.{suffix}", prompt__template="[{{ q }}]"))
    assert summary.exit_code is Exit.DONE
    assert prompts(server) == {f"[{cell}]" for cell in CELLS.values()}
    out = {
        "tsv": lambda path: pl.read_csv(path, infer_schema=False, separator="\t"),
        "parquet": pl.read_parquet,
        "ndjson": pl.read_ndjson,
        "arrow": pl.read_ipc,
    }.get(suffix, lambda path: pl.read_csv(path, infer_schema=False))(tmp_path / f"out.{suffix}")
    assert out["q"].to_list() == list(CELLS.values())
    assert out["id"].to_list() == [f"{n:03}" for n in range(len(CELLS))]
    assert out["answer"].to_list() == [answer_to(f"[{cell}]") for cell in CELLS.values()]
    if suffix == "csv":  # to the byte, the columns that were added left out
        told = csv_cells((tmp_path / "out.csv").read_bytes())
        assert [row[:2] for row in told] == csv_cells((tmp_path / "in.csv").read_bytes())


def test_an_answer_of_every_kind_of_text_comes_back_from_every_format(tmp_path: Path) -> None:
    cells = [cell for cell in CELLS.values() if cell.strip()]

    def reply(seen: Seen, _attempt: int) -> Canned:
        return Canned(body=completion(cells[int(seen.prompt)]))

    pl.DataFrame({"prompt": [str(n) for n in range(len(cells))]}).write_csv(tmp_path / "in.csv")
    with ChatServer(reply) as server:
        assert run(job(server, tmp_path / "in.csv", tmp_path / "out.csv")).exit_code is Exit.DONE
    for suffix, read in (("parquet", pl.read_parquet), ("ndjson", pl.read_ndjson), ("arrow", pl.read_ipc)):
        export_table(tmp_path / "out.csv", tmp_path / f"o.{suffix}")
        assert read(tmp_path / f"o.{suffix}")["answer"].to_list() == cells
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["answer"] for row in csv.DictReader(file)] == cells


@pytest.mark.parametrize(
    ("content", "again"),
    [
        (b"\xef\xbb\xbfid,prompt\n1,a\n", b"id,prompt\n1,a\n"),
        (b"id,prompt\r\n1,a\r\n2,b\r\n", b"id,prompt\n1,a\n2,b\n"),
        (b'"id","prompt"\n"1","a"\n', b"id,prompt\n1,a\n"),
        (b"id,prompt\n1,a", b"id,prompt\n1,a\n"),
        (b"id,prompt\n\n1,a\n\n", b"id,prompt\n1,a\n"),
        (b'id,prompt\n"",a\n,b\n', b'id,prompt\n"",a\n,b\n'),
        (b'\xef\xbb\xbf"id","prompt"\r\n1,"a\r\nb"\r\n', b'id,prompt\n1,"a\r\nb"\n'),
    ],
)
def test_a_csv_comes_back_to_the_byte_but_for_its_mark_line_ends_blank_lines_and_needless_quotes(
    tmp_path: Path, server: ChatServer, content: bytes, again: bytes
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    flags = {"output__columns": ["attempts"]}
    assert run(job(server, tmp_path / "in.csv", tmp_path / "out.csv", **flags)).exit_code is Exit.DONE
    rows = csv_cells(again)
    assert prompts(server) == {row[1] for row in rows[1:]}
    out = (tmp_path / "out.csv").read_bytes()
    assert out.replace(b",attempts\n", b"\n", 1).replace(b",1\n", b"\n") == again


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("id,prompt\n1,a\n".encode("utf-16"), "UTF-16"),
        ("id,prompt\n1,a\n".encode("utf-16-le"), "UTF-16"),
        (b"id,prompt\n1,caf\xe9\n", r"in\.csv:2: byte 0xe9 at offset \d+ is not UTF-8"),
        (b"id,prompt\n1,\xed\xa0\x80\n", r"in\.csv:2: byte 0xed"),
        (b"id,prompt\r1,a\r2,b\r", "carriage returns stand alone"),
        (b"a,a\n1,2\n", "columns of the same name: 'a'"),
        (b"prompt,\n1,2\n", "no name at column 2"),
        (b"\n\n", "not even a header"),
        (b"", "not even a header"),
        (b'prompt,b\n"1,2\n', "quotes"),
        (b"prompt,b\n1\n", "1 cells, where the header has 2"),
    ],
)
def test_a_csv_that_cannot_be_read_without_a_guess_is_told_and_nothing_is_sent(
    tmp_path: Path, server: ChatServer, content: bytes, said: str
) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(BadJob, match=said):
        run(job(server, tmp_path / "in.csv", tmp_path / "out.csv"))
    assert server.arrived == 0
    assert not (tmp_path / "out.csv").exists()


NAMES = [
    "for", "loop", "self", "range", "dict", "namespace", "caller", "varargs", "true", "None", "if", "two words", "a.b",
    "a-b", "it's", 'a "b"', "a\nb", "1st", "naïve-é", "^a.*$", "*", "\U0001f642", "{{ x }}", "model", "base_url",
    "prompt", "constructor", "_", "key", "error", "first", "\u202ename", "__class__", "items", "keys", " blank ",
    "answer", "status",
]  # fmt: skip


@pytest.mark.parametrize("suffix", ["csv", "parquet", "ndjson"])
def test_a_column_of_every_name_is_read_and_comes_back(tmp_path: Path, server: ChatServer, suffix: str) -> None:
    source = pl.DataFrame({name: [f"{n}-0", f"{n}-1"] for n, name in enumerate(NAMES)})
    getattr(source, f"write_{suffix}")(tmp_path / f"in.{suffix}")
    whole = "{% for name in row %}[{{ row[name] }}]{% endfor %}"
    made = job(server, tmp_path / f"in.{suffix}", tmp_path / "out.parquet", prompt__template=whole, output__prefix="m_")
    assert run(made).exit_code is Exit.DONE
    assert prompts(server) == {"".join(f"[{n}-{at}]" for n in range(len(NAMES))) for at in (0, 1)}
    out = pl.read_parquet(tmp_path / "out.parquet")
    assert out.columns[: len(NAMES)] == NAMES
    assert_frame_equal(out.select(pl.nth(*range(len(NAMES)))), source)


@pytest.mark.parametrize("name", ["for", "row", "a\nb", "^a.*$", "base_url", "two words"])
def test_a_column_of_every_name_may_hold_the_prompts(tmp_path: Path, server: ChatServer, name: str) -> None:
    pl.DataFrame({"other": ["x"], name: ["https://elsewhere.invalid/v1"]}).write_csv(tmp_path / "in.csv")
    made = job(server, tmp_path / "in.csv", tmp_path / "out.parquet", prompt__column=name)
    assert run(made).exit_code is Exit.DONE
    assert prompts(server) == {"https://elsewhere.invalid/v1"}


def test_a_column_called_answer_clashes_before_anything_is_sent(tmp_path: Path, server: ChatServer) -> None:
    (tmp_path / "in.csv").write_text("prompt,answer\na,mine\n")
    with pytest.raises(BadJob, match=r'\[output\]\nprefix = "model_"'):
        run(job(server, tmp_path / "in.csv", tmp_path / "out.csv"))
    assert server.arrived == 0
    run(job(server, tmp_path / "in.csv", tmp_path / "out.csv", output__prefix="model_"))
    assert pl.read_csv(tmp_path / "out.csv").select("answer", "model_answer").row(0) == ("mine", answer_to("a"))


def test_two_thousand_columns_and_a_prompt_of_five_megabytes(tmp_path: Path, server: ChatServer) -> None:
    long = "long é " * 700_000
    source = pl.DataFrame({f"c{n}": [str(n), long if n == 1_999 else ""] for n in range(2_000)})
    source.write_csv(tmp_path / "in.csv")
    made = job(server, tmp_path / "in.csv", tmp_path / "out.csv", prompt__column="c1999")
    assert run(made).exit_code is Exit.DONE
    assert prompts(server) == {"1999", long}
    out = pl.read_csv(tmp_path / "out.csv", infer_schema=False)
    assert_frame_equal(out.select(source.columns), source)
    assert out["answer"].to_list() == [answer_to("1999"), answer_to(long)]


ZONED = dt.datetime(2026, 1, 2, 3, 4, 5, 6789, tzinfo=dt.UTC)
TYPED: dict[str, tuple[pl.Series, str, Any]] = {
    # a column of two cells, the first as it is asked, and as it stands in a CSV
    "past 2^53": (pl.Series([2**53 + 1, None], dtype=pl.Int64), "9007199254740993", None),
    "past 2^63": (pl.Series([2**64 - 1, 0], dtype=pl.UInt64), "18446744073709551615", None),
    "past 2^64": (pl.Series([2**100, 0], dtype=pl.Int128), str(2**100), None),
    "a fraction": (pl.Series([0.1 + 0.2, float("nan")]), "0.30000000000000004", None),
    "a truth": (pl.Series([True, None]), "True", "true"),
    "a day": (pl.Series([dt.date(2026, 1, 2), None]), "2026-01-02", None),
    "a time": (pl.Series([ZONED.replace(tzinfo=None), None]), "2026-01-02 03:04:05.006789",
               "2026-01-02T03:04:05.006789"),
    "a time with a zone": (pl.Series([ZONED, None]).dt.convert_time_zone("Europe/Berlin"),
                           "2026-01-02 04:04:05.006789+01:00", "2026-01-02T04:04:05.006789+0100"),
    "a time of day": (pl.Series([dt.time(1, 2, 3), None]), "01:02:03", "01:02:03.000000000"),
    "a duration": (pl.Series([dt.timedelta(days=1, microseconds=1), None]), "1 day, 0:00:00.000001", "P1DT0.000001S"),
    "a decimal": (pl.Series([decimal.Decimal("1.10"), None], dtype=pl.Decimal(38, 2)), "1.10", None),
    "a category": (pl.Series(["x", None], dtype=pl.Categorical), "x", None),
    "one of a few": (pl.Series(["y", None], dtype=pl.Enum(["x", "y"])), "y", None),
    "a list": (pl.Series([[1, 2], []]), "[1, 2]", None),
    "an array": (pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)), "[1, 2]", None),
    "a struct": (pl.Series([{"a": 1, "b": "é"}, {"a": None, "b": "y"}]), '{"a": 1, "b": "é"}', None),
    "structs in a list": (pl.Series([[{"a": 1}], None]), '[{"a": 1}]', None),
    "bytes": (pl.Series([b"\xff\x00", b""]), "", "/wA="),
    "nothing": (pl.Series([None, None]), "", ""),
}  # fmt: skip


def test_every_type_of_parquet_is_asked_as_it_reads_and_comes_back(tmp_path: Path, server: ChatServer) -> None:
    source = pl.DataFrame({"id": ["a", "b"], **{name: series for name, (series, _, _) in TYPED.items()}})
    source.write_parquet(tmp_path / "in.parquet")
    asked = {name: text for name, (_, text, _) in TYPED.items() if text}
    nested = {name for name in asked if source[name].dtype.is_nested()}
    template = "{{ id }}" + "".join(
        f"{{% if id == 'a' %}}|{{{{ row['{name}']{' | tojson' * (name in nested)} }}}}{{% endif %}}" for name in asked
    )
    for suffix, read in (("parquet", pl.read_parquet), ("arrow", pl.read_ipc)):
        made = job(server, tmp_path / "in.parquet", tmp_path / f"out.{suffix}", prompt__template=template)
        assert run(made).exit_code is Exit.DONE
        assert_frame_equal(read(tmp_path / f"out.{suffix}").select(source.columns), source)
    assert prompts(server) == {"|".join(["a", *asked.values()]), "b"}
    export_table(tmp_path / "out.parquet", tmp_path / "out.csv")
    first = csv_cells((tmp_path / "out.csv").read_bytes())[1]
    assert first[1 : len(TYPED) + 1] == [text if cell is None else cell for _, text, cell in TYPED.values()]
    export_table(tmp_path / "out.parquet", tmp_path / "out.ndjson")
    line = json.loads((tmp_path / "out.ndjson").read_text("utf-8").splitlines()[0])
    assert (line["past 2^64"], line["bytes"], line["a decimal"]) == (2**100, "/wA=", "1.10")


def test_half_a_surrogate_pair_in_json_is_told_with_its_line_and_a_whole_one_is_a_character(
    tmp_path: Path, server: ChatServer
) -> None:
    (tmp_path / "in.ndjson").write_text('{"prompt": "whole \\ud83d\\ude42"}\n')
    assert run(job(server, tmp_path / "in.ndjson", tmp_path / "out.csv")).exit_code is Exit.DONE
    assert prompts(server) == {"whole \U0001f642"}
    (tmp_path / "in.ndjson").write_text('{"prompt": "half"}\n{"prompt": "half \\ud800"}\n')
    with pytest.raises(BadJob, match=r"in\.ndjson:2: half of a surrogate pair"):
        run(job(server, tmp_path / "in.ndjson", tmp_path / "out.csv"))
    assert server.arrived == 1


@pytest.mark.parametrize("name", ["out[2].csv", "out[2.parquet", "o*t?.ndjson", "k=1/{a,b}=2.arrow", "a b'\"$(x).csv"])
def test_an_output_of_any_name_is_that_file_and_not_a_pattern(tmp_path: Path, server: ChatServer, name: str) -> None:
    (tmp_path / "k=1").mkdir()
    (tmp_path / "in[2.csv").write_text("prompt\na\n")
    for _ in range(2):
        assert run(job(server, tmp_path / "in[2.csv", tmp_path / name)).exit_code is Exit.DONE
    assert (tmp_path / name).is_file()
    export_table(tmp_path / name, tmp_path / "other.csv")
    assert pl.read_csv(tmp_path / "other.csv")["answer"].to_list() == [answer_to("a")]
    assert server.arrived == 1


HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x9b\u202e"


def test_no_name_and_no_text_of_others_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    def reply(seen: Seen, _attempt: int) -> Canned | None:
        if "fail" in seen.prompt:
            return Canned(400, json.dumps({"error": {"message": f"{HOSTILE}no {seen.prompt}"}}).encode())
        return Canned(body=completion(f"{HOSTILE}yes", model=f"m{HOSTILE}"), headers={"x-note": "\x9b2J"})

    source, out, column = f"in{HOSTILE}.csv", f"out{HOSTILE}.csv", f"q{HOSTILE}"
    pl.DataFrame({column: [f"{HOSTILE}ask", f"{HOSTILE}fail"]}).write_csv(tmp_path / source)
    other = tmp_path / "other.csv.job"
    other.mkdir()
    with ChatServer(reply) as server:
        asking = ["--base-url", server.url, "-m", f"m{HOSTILE}\nDone in 1 s: 5 ok"]
        asked = [*asking, "--set", f"prompt.column={json.dumps(column)}"]
        host = ["--base-url", "http://h\x1bc\x9b2J/v1"]
        lines = {
            ("run", source, "-o", out, "-v", *asked): 3,
            ("preview", source, *asked): 0,
            ("preview", source, *asked[2:], *host): 0,
            ("show", out): 0,
            ("export", out, "-o", f"other{HOSTILE}.csv"): 0,
            ("run", f"{HOSTILE}none.csv", "-o", "x.csv", *asking): 2,
            ("run", source, "-o", "x.csv", *asking, "-p", "{{ nothing }}"): 2,
            ("run", source, "-o", f"{HOSTILE}/x.csv", *asked): 2,
            ("show", f"{HOSTILE}none"): 2,
        }
        for words, code in lines.items():
            done = subprocess.run(
                [sys.executable, "-m", "pipeline", *words], cwd=tmp_path, capture_output=True, text=True, check=False
            )
            assert done.returncode == code, (words, done.stderr)
            said = done.stdout + done.stderr
            assert said
            assert not {*"\x1b\x07\x9b\u202e"} & {*said}, (words, said)
            assert "\nDone in 1 s: 5 ok" not in said
    log = (tmp_path / f"{out}.job" / "log.txt").read_text("utf-8")
    assert not {*"\x1b\x07\x9b\u202e"} & {*log}
