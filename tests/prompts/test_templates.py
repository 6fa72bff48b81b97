"""A template filled in with a row's cells: what it can do, what it cannot reach, and that Ctrl-C ends it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.prompts.templates import Template, UnaskableRow
from pipeline.records import BadJob, Stopped
from pipeline.runs.signals import signals_raised

ROW = {"a": "x", "n": 7, "null": None, "l": ["x"] * 10, "rows": [{"k": "v"}] * 3}


def rendered(text: str, row: dict[str, Any] = ROW) -> str:
    return Template("prompt.template", text, list(row)).render(row)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("{{ l | length }} {{ l | join(', ') }}", "10 x, x, x, x, x, x, x, x, x, x"),
        ("{{ '%05.2f' | format(3.14159) }} {{ '{:*^9}'.format('x') }} {{ '%s: %d' % (a, n) }}", "03.14 ****x**** x: 7"),
        ("{{ 'in {0[k]}, {x:>5}|'.format(rows[0], x=n) }}", "in v,     7|"),
        ("{{ a ~ 1 ~ l[0] }} {{ l[2:4] }} {{ a[::-1] }}", "x1x ['x', 'x'] x"),
        ("{{ a | upper | center(5) }}|{{ a.ljust(3) }}|{{ 'a\tb'.expandtabs(4) }}", "  X  |x  |a   b"),
        ("{{ l | map('upper') | unique | list }} {{ rows | map(attribute='k') | join }}", "['X'] vvv"),
        ("{{ {'a': 1} | tojson }} {{ 2 ** 10 }} {{ n * 3 }} {{ '-' * n }} {{ n % 4 }}", '{"a": 1} 1024 21 ------- 3'),
        ("{% for i in l if i == 'x' %}{{ loop.index }}{{ ',' * (not loop.last) }}{% endfor %}", "1,2,3,4,5,6,7,8,9,10"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(a) }}", "<x>"),
        ("{% set c = namespace(n=0) %}{% for i in l %}{% set c.n = c.n + 1 %}{% endfor %}{{ c.n }}", "10"),
        ("{{ a | replace('x', 'yy') }} {{ 'a,b'.split(',') | last }} {{ 'k'.join(['1', '2']) }}", "yy b 1k2"),
        ("{{ null or 'none' }} {{ null | default('d', true) }} {{ [1, 2] | sum(start=10**9) }}", "none d 1000000003"),
        ("{{ [3, 1] | sort }} {{ 'a\nb' | indent(2) }} {{ l | batch(4) | list | length }}", "[1, 3] a\n  b 3"),
        ("{{ range(99999) | sum }} {{ 2.567 | round(1) }}", "4999850001 2.6"),
    ],
)  # fmt: skip
def test_what_templates_are_written_for_works(text: str, made: str) -> None:
    assert rendered(text) == made


def test_a_prompt_of_five_million_characters_may_pass_through_many_filters() -> None:
    text = "{{ a | trim | replace('\\r', '') | upper | lower | truncate(6000000) }}"
    assert rendered(text, {"a": " " + "long\r " * 1_000_000}) == ("long " * 1_000_000).strip()


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ a['__class__'] }}",
        "{{ a | attr('__class__') }}",
        "{{ [a] | map(attribute='__class__') | list }}",
        "{{ [a] | map('attr', '__class__') | list }}",
        "{{ a.__init__.__globals__ }}",
        "{{ a.upper.__self__ }}",
        "{{ '{0.__class__}'.format.__wrapped__(a) }}",
        "{{ range.__wrapped__ }}",
        "{{ '{0.__class__}'.format(a) }}",
        "{{ '{a.__class__.__mro__}'.format_map({'a': a}) }}",
        "{{ '{0[__class__]}'.format(a) }}",
        "{{ '%s' | format(a.__class__) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ joiner.__init__ }}",
        "{{ namespace.__init__.__globals__['os'] }}",
        "{{ self.__init__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ dict.__subclasses__() }}",
        "{{ l.append(1) }}",
    ],
)
def test_nothing_of_the_programs_inside_can_be_reached(text: str) -> None:
    with pytest.raises(UnaskableRow, match=r"unsafe|has no attribute|not safely callable|string indices|cannot be"):
        rendered(text)


@pytest.mark.parametrize("text", ["{% include '/etc/passwd' %}", "{% import 'x' as y %}", "{% extends 'x' %}"])
def test_a_template_reaches_no_other_file(text: str) -> None:
    with pytest.raises(BadJob, match="cannot include, import or extend another"):
        rendered(text)
    with pytest.raises(BadJob, match="cannot include, import or extend another"):
        rendered("{% from 'x' import y %}")


@pytest.mark.parametrize("text", ["{{ lipsum() }}", "{{ [1, 2] | random }}"])
def test_a_template_cannot_choose_at_random(text: str) -> None:
    with pytest.raises(BadJob, match=r"lipsum|random"):
        rendered(text)


@pytest.mark.parametrize(
    "text", ["{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "{% for i in l %}" * 30 + "{% endfor %}" * 30, "{{ 1" * 9]
)
def test_a_template_that_python_itself_cannot_compile_is_a_bad_job(text: str) -> None:
    with pytest.raises(BadJob, match=r"prompt\.template[\s\S]*Nothing was sent"):
        rendered(text)


@pytest.mark.parametrize("text", ["{{ a.nothing.more }}", "{{ 1 // 0 }}", "{{ l.x }}", "{{ [l.x] }}"])
def test_what_goes_wrong_with_a_row_is_reported(text: str) -> None:
    with pytest.raises(UnaskableRow, match=r"the template fails on this row: ."):
        rendered(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ null }}",
        "{{ none }}",
        "{{ 'a' ~ null }}",
        "{{ 'a' ~ (n ~ null) }}",
        "{% for i in [null] %}{{ i }}{% endfor %}",
    ],
)
def test_the_word_none_is_never_put_into_a_prompt(text: str) -> None:
    with pytest.raises(UnaskableRow, match="prints a null"):
        rendered(text)


@pytest.mark.parametrize("text", ["{{ a.upper }}", "{{ range }}", "{{ l | map('upper') }}"])
def test_code_is_never_put_into_a_prompt(text: str) -> None:
    with pytest.raises(UnaskableRow, match="prints code"):
        rendered(text)


def test_bytes_are_never_put_into_a_prompt() -> None:
    with pytest.raises(UnaskableRow, match="prints bytes"):
        rendered("{{ b }}", {"b": b"\xff\x00"})
    assert rendered("{{ b.decode('latin-1') }}", {"b": b"\xff"}) == "\xff"


def test_a_cell_is_never_itself_a_template() -> None:
    for cell in ("{{ 7 * 7 }}", "{% for i in range(9) %}{% endfor %}", "{0.__class__}", "%s", "{# gone #}"):
        assert rendered("{{ a }} {{ row.a }} {{ row['a'] }}", {"a": cell}) == f"{cell} {cell} {cell}"


def test_an_output_without_end_is_ended_by_the_cap() -> None:
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}0123456789{% endfor %}{% endfor %}"
    with pytest.raises(UnaskableRow, match="the prompt is longer than 33,554,432 characters"):
        rendered(endless)
    template = Template("prompt.template", "{{ a * 30_000_000 }}", ["a"])
    assert len(template.render({"a": "x"})) == 30_000_000
    with pytest.raises(UnaskableRow, match="longer than"):
        template.render({"a": "xy"})


def test_a_loop_is_of_100000_turns_at_most() -> None:
    with pytest.raises(UnaskableRow, match="Range too big"):
        rendered("{% for i in range(100001) %}{% endfor %}")


def test_what_memory_has_no_room_for_is_a_row_error() -> None:
    with pytest.raises(UnaskableRow, match="MemoryError"):
        rendered("{{ 'a' * 10**18 }}")


LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
"""Runs for many minutes."""
LOOPS_FOR_LONG = "{% if q == 'long' %}" + LOOPS + "{% endif %}{{ q }}"


def typed(folder: Path, command: str, *words: str) -> subprocess.Popen[str]:
    (folder / "in.csv").write_text("q\nshort\nlong\n")
    line = [sys.executable, "-m", "pipeline", command, "in.csv", "--base-url", "http://127.0.0.1:9/v1", "-m", "m"]
    return subprocess.Popen(
        [*line, "-p", LOOPS_FOR_LONG, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def interrupt(child: subprocess.Popen[str]) -> tuple[str, str]:
    child.send_signal(signal.SIGINT)
    try:
        return child.communicate(timeout=60)
    finally:
        child.kill()


def test_ctrl_c_ends_a_preview_while_a_template_loops(tmp_path: Path) -> None:
    child = typed(tmp_path, "preview")
    assert child.stdout is not None
    while "}" not in child.stdout.readline().rstrip("\n"):  # the first row's request is shown: the second row loops
        assert child.poll() is None
    out, err = interrupt(child)
    assert child.returncode != 0
    assert "row 2" not in out
    assert "Traceback" not in err


def test_ctrl_c_ends_a_run_while_a_template_loops(tmp_path: Path) -> None:
    child = typed(tmp_path, "run", "-o", "out.csv")
    while not (tmp_path / "out.csv.job" / "plan.new").exists():
        assert child.poll() is None
        time.sleep(0.05)
    _, err = interrupt(child)
    assert child.returncode == 130
    assert "SIGINT" in err
    assert "Every answer so far is kept" in err
    assert not (tmp_path / "out.csv").exists()


def test_a_signal_that_strikes_inside_a_template_is_no_fault_of_the_row() -> None:
    template = Template("prompt.template", LOOPS, [])
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    with signals_raised():
        timer.start()
        with pytest.raises(Stopped, match="SIGINT"):
            template.render({})


def test_recursion_without_end_is_a_row_error() -> None:
    for text in (
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
        "{% for i in l recursive %}{{ loop(l) }}{% endfor %}",
    ):
        with pytest.raises(UnaskableRow, match="recursion"):
            rendered(text)
