"""A template filled in with a row's cells: what it may do, and that it ends, whoever wrote it."""

import json
import subprocess
import sys
from typing import Any

import pytest

from pipeline.prompts.templates import WORK_MAX, Template, UnaskableRow
from pipeline.records import BadJob

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
        "{{ a.format.__wrapped__ }}",
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
    with pytest.raises(BadJob, match="stands alone"):
        rendered(text)
    with pytest.raises(BadJob, match="stands alone"):
        rendered("{% from 'x' import y %}")


@pytest.mark.parametrize("text", ["{{ lipsum() }}", "{{ [1, 2] | random }}"])
def test_chance_has_no_place_in_a_template(text: str) -> None:
    with pytest.raises(BadJob, match=r"lipsum|random"):
        rendered(text)


@pytest.mark.parametrize(
    "text", ["{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "{% for i in l %}" * 30 + "{% endfor %}" * 30, "{{ 1" * 9]
)
def test_a_template_that_python_itself_cannot_compile_is_a_bad_job(text: str) -> None:
    with pytest.raises(BadJob, match=r"prompt\.template[\s\S]*Nothing was sent"):
        rendered(text)


@pytest.mark.parametrize("text", ["{{ a.nothing.more }}", "{{ 1 // 0 }}", "{{ l.x }}"])
def test_what_goes_wrong_with_a_row_is_told(text: str) -> None:
    with pytest.raises(UnaskableRow, match=r"the template fails on this row: ."):
        rendered(text)


@pytest.mark.parametrize("text", ["{{ null }}", "{{ 'a' ~ null }}", "{% for i in [null] %}{{ i }}{% endfor %}"])
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


TWICE = "{% set s = namespace(x=START) %}{% for i in range(60) %}{% set s.x = GROWN %}{% endfor %}{{ END }}"


def twice(start: str, grown: str, end: str = "s.x | length") -> str:
    return TWICE.replace("START", start).replace("GROWN", grown).replace("END", end)


ENDLESS = [
    "{{ 'a' * 10**12 }}",
    "{{ 10**9 * 'a' }}",
    "{{ ([1] * 10**9) | length }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 2 ** 1000000 }}",
    "{{ a.center(10**9) }}",
    "{{ a | center(10**9) }}",
    "{{ a.zfill(10**10) }}",
    "{{ '\t'.expandtabs(10**10) }}",
    "{{ (1).to_bytes(10**10, 'big') }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%(a)1000000000s' % {'a': 1} }}",
    "{{ '%((a))1000000000s' % {'(a)': 1} }}",
    "{{ '%.1000000000f' | format(1.0) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '{:{}}'.format(1, '>1000000000') }}",
    "{{ '{a:{w}}'.format_map({'a': 1, 'w': 1000000000}) }}",
    "{{ ('%s' * 100000) | format(*(['a' * 1000000] * 100000)) | length }}",
    "{{ a | indent(10**9) }}",
    "{{ [1] | batch(10**9, 0) | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ l | tojson(indent=10**9) }}",
    "{{ 1 | round(10**9, 'ceil') }}",
    "{{ ('a' * 30000000).replace('', 'b' * 1000000) }}",
    "{{ ('a' * 3000000) | replace('a', 'b' * 1000000) }}",
    "{{ ('b' * 1000000).join(['a'] * 100000) }}",
    "{{ (['a'] * 100000) | join('b' * 1000000) }}",
    "{{ (['a' * 1000000] * 100000) | join }}",
    "{{ (['a' * 1000000] * 100000) | select | join | length }}",
    "{{ ('a' * 1000000).translate({97: 'b' * 1000000}) | length }}",
    "{{ ('a' * 30000000) | list | length }}",
    "{{ ('a ' * 15000000).split() | length }}",
    "{{ range(99999) | map('center', 1000000) | list }}",
    "{{ ([range(99999) | list] * 100000) | sum(start=[]) | length }}",
    "{{ ([range(99999) | list] * 100000) | select | sum(start=[]) | length }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}0123456789{% endfor %}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "0123456789" * 1000 + "{% endfor %}{% endset %}{{ x | length }}",
    "{% set x %}{% for i in range(99999) %}{{ a * 100000 }}{% endfor %}{% endset %}{{ x | length }}",
    "{% filter upper %}{% for i in range(99999) %}{{ a * 100000 }}{% endfor %}{% endfilter %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for i in range(999) recursive %}{{ loop(range(999)) if loop.depth < 9 else '' }}{% endfor %}",
    twice("'ab'", "s.x + s.x"),
    twice("'ab'", "s.x ~ s.x"),
    twice("['ab']", "s.x + s.x"),
    twice("9", "s.x * s.x", "s.x"),
    *(twice("['ab']", "[s.x, s.x]", end) for end in ("s.x", "s.x | tojson", "'a' ~ s.x", "'%s' % s.x", "s.x | upper")),
    *(twice("['ab']", "{'a': s.x, 'b': s.x}", end) for end in ("'{}'.format(s.x)", "s.x | string", "s.x | pprint")),
    twice("[]", "[s.x, (a * 30000000)[1:]]"),
]

RENDER_ALL = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
from pipeline.prompts import templates
from pipeline.prompts.templates import Template, UnaskableRow

texts, row = json.load(sys.stdin)
purse = templates.WORK_MAX
for number, text in enumerate(texts):
    templates.WORK_MAX = purse if number % 6 == 0 else purse // 8
    try:
        made = Template("prompt.template", text, list(row)).render(row)
        print(f"rendered: {len(made)} characters", flush=True)
    except UnaskableRow as error:
        print(error, flush=True)
"""


def test_a_template_without_end_is_ended_with_little_memory_and_work() -> None:
    # in a process that may take 2 GB and two minutes for all of them: without the bounds most of these would take both;
    # most of them with less to spend than a row has, as each takes its second or two to spend it
    given = json.dumps([ENDLESS, ROW])
    done = subprocess.run(
        [sys.executable, "-c", RENDER_ALL], input=given, capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, (done.stderr[-500:], len(done.stdout.splitlines()))
    for text, said in zip(ENDLESS, done.stdout.splitlines(), strict=True):
        assert any(words in said for words in ("far too much", "wild", "without end", "recursion depth")), (text, said)


def test_recursion_without_end_is_a_row_error() -> None:
    for text in (
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
        "{% for i in l recursive %}{{ loop(l) }}{% endfor %}",
    ):
        with pytest.raises(UnaskableRow, match="recursion"):
            rendered(text)


def test_each_row_has_a_purse_of_its_own() -> None:
    template = Template("prompt.template", "{{ a * 30_000_000 }}", ["a"])
    assert WORK_MAX < 10 * 30_000_000
    for _ in range(10):
        assert len(template.render({"a": "x"})) == 30_000_000
    with pytest.raises(UnaskableRow, match="longer than"):
        template.render({"a": "xy"})
