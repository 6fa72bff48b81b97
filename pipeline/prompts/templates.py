"""A text of the job file, filled in with a row's cells: Jinja in a sandbox, with an end to its work and its memory.

A job file may come from someone else. Jinja's sandbox keeps a template from the program's inside; here it is also kept
from work without end. What it does is counted, not timed, so that the same row always gives the same prompt: each turn
of a loop and each call, each character and each element that it makes. What one operation would make beyond measure is
foreseen from its operands and not begun. A cell's text is data: never a template, whatever it looks like.
"""

import functools
import json
import re
import string
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from ..records import BadJob
from ..text import did_you_mean

PROMPT_CHARACTERS_MAX = 32 * 1024 * 1024
"""A prompt longer than this is a template gone wrong: no model takes it."""
WORK_MAX = 256 * 1024 * 1024
"""What one rendering may spend: a unit for a character, and these for…"""
ELEMENT = 32
"""… an element of a list that is made, in units, …"""
TURN = 256
"""… a turn of a loop, a filter, or an element that is printed: so no more than a million of them, …"""
CALL = 2560
"""… and a call, which takes as long as ten of these: altogether a second or two."""
NUMBER_BITS_MAX = 65_536
"""Python itself prints no whole number of more than 4,300 digits."""
WIDTHS = {"batch": 1_000_000, "center": 1_000_000, "indent": 100, "round": 100, "slice": 1_000_000, "tojson": 100}
"""Filters whose number is a size of what they make, and how large it may be."""
UNWEIGHED = frozenset({"count", "d", "default", "first", "last", "length"})
"""Filters that look at one element or none."""
LAZY = frozenset(
    {"attr", "batch", "dictsort", "groupby", "items", "list", "map", "max", "min", "reject", "rejectattr", "reverse"}
    | {"select", "selectattr", "slice", "sort", "unique"}
)
"""Filters that hand on the elements as they are: their number counts, not what is in them."""
OTHER_TEMPLATES: tuple[type[nodes.Node], ...] = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
PADDING = frozenset({"center", "expandtabs", "ljust", "rjust", "to_bytes", "zfill"})
SPLITTING = frozenset({"rsplit", "split", "splitlines"})
WIDE = re.compile(r"[0-9]{5}|[*{]")
"""A field's width that is wild, or that comes from elsewhere."""
PERCENT_FIELD = re.compile(r"[%)][-#0 +]*([0-9*]*(?:\.[0-9*]*)?)")

Row = Mapping[str, Any]


class UnaskableRow(ValueError):
    """Why a row cannot be asked, whatever the endpoint."""


class Template:
    """One compiled text of the job file, and the columns that it reads."""

    def __init__(self, setting: str, text: str, columns: Sequence[str]) -> None:
        """Raises BadJob, naming `setting`, for a text that is no template or names a column that is not there."""
        self._environment = _Sandbox()
        try:
            tree = self._environment.parse(text)
            names = meta.find_undeclared_variables(tree) - set(self._environment.globals)
            if any(tree.find(kind) for kind in OTHER_TEMPLATES):
                raise BadJob(f"{setting}: a template stands alone: it cannot include, import or extend another.{_SENT}")
            self._template = self._environment.from_string(_Counted().visit(tree))
            self._template.globals = dict(self._template.globals)  # a ChainMap, which each rendering copies slowly
        except jinja2.TemplateSyntaxError as error:
            raise BadJob(f"{setting}, line {error.lineno}: {error.message}{_SENT}") from None
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError, ValueError, AssertionError) as error:
            raise BadJob(f"{setting} cannot be compiled: {str(error) or type(error).__name__}{_SENT}") from None
        self._whole_row = "row" in names and "row" not in columns
        for name in sorted(names - set(columns) - ({"row"} if self._whole_row else set())):
            raise BadJob(f"{setting}: the input has no column {name!r}{did_you_mean(name, columns)}{_SENT}")
        self.columns = tuple(columns) if self._whole_row else tuple(name for name in columns if name in names)

    def render(self, row: Row) -> str:
        """Raises Unaskable for whatever goes wrong with this row alone."""
        given = {name: row[name] for name in self.columns}
        if self._whole_row:
            given["row"] = dict(given)
        self._environment.left = WORK_MAX
        try:
            # `Template.generate`, but for a copy of what it is given, and for tracebacks, which nobody sees
            context = self._template.new_context({**self._template.globals, **given}, shared=True)
            return _capped(self._template.root_render_func(context))
        except UnaskableRow:
            raise
        except Exception as error:  # noqa: BLE001 - a template is the user's code: a bad row may raise anything
            raise UnaskableRow(f"the template fails on this row: {str(error) or type(error).__name__}") from None


_SENT = "\nNothing was sent."


def _capped(parts: Iterable[str]) -> str:
    kept, length = [], 0
    for part in parts:
        kept.append(part)
        length += len(part)
        if length > PROMPT_CHARACTERS_MAX:
            raise UnaskableRow(f"the prompt is longer than {PROMPT_CHARACTERS_MAX:,} characters")
    return "".join(kept)


class _Counted(NodeTransformer):
    """Puts into a template what counts the work that no hook of the sandbox sees. A name with a blank is ours alone."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # noqa: N802 - the visitor's name for it
        """Each turn costs, with the fixed text that it prints; so does each element that a condition passes over."""
        self.generic_visit(node)
        printed = sum(len(part.data) for part in node.find_all(nodes.TemplateData))
        printed += sum(len(part.value) for part in node.find_all(nodes.Const) if isinstance(part.value, str))
        turn = nodes.Filter(nodes.Const(TURN + printed), " turn", [], [], None, None)
        node.body.insert(0, nodes.ExprStmt(turn, lineno=node.lineno))
        if node.test is not None:
            node.test = nodes.And(turn, node.test, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Filter:  # noqa: N802 - as above
        """`a ~ b` puts together what may have grown."""
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, " concat", [], [], None, None, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Expr:  # noqa: N802 - as above
        """A slice is a copy."""
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        return nodes.Filter(node, " copied", [], [], None, None, lineno=node.lineno)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's own, with a purse."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=jinja2.StrictUndefined,
            finalize=self._printed,
            autoescape=False,  # prompts are text, not HTML
            optimized=False,  # or constants are worked out before anything is counted
        )
        self.left = WORK_MAX
        """What this rendering may still spend."""
        self.filters["tojson"] = _to_json
        # the same row must always give the same prompt, or no answer would be found again
        del self.filters["random"]
        del self.globals["lipsum"]
        self.filters = {name: self._bounded(name, function) for name, function in self.filters.items()}
        self.filters[" turn"] = jinja2.pass_context(lambda _context, units: self.spend(units))
        self.filters[" concat"] = lambda parts: "".join(str(self._printed(part)) for part in parts)
        self.filters[" copied"] = self._made

    def spend(self, units: int) -> bool:
        """True, so that a condition may begin with it. Raises Unaskable when nothing is left."""
        self.left -= units
        if self.left < 0:
            raise UnaskableRow("the template does far too much for one prompt: an endless loop, or text upon text?")
        return True

    def call(self, context: Any, called: Any, /, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as jinja has it
        """Any call in a template: of a macro, of a method."""
        self.spend(CALL)
        if isinstance(called, types.BuiltinMethodType):
            args = self._foreseen(called, args)
        return self._made(super().call(context, called, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 - as jinja has it
        """Of two operands, what could grow."""
        if operator == "*":
            self._foresee_product(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() * abs(right))
        elif operator == "%" and isinstance(left, str):
            self._foresee_fields(PERCENT_FIELD.findall(left), right)
        return self._made(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:  # noqa: ANN401 - as jinja has it
        """`str.format`, with no wild widths."""
        sandboxed = super().wrap_str_format(value)
        if sandboxed is None:
            return None

        def bounded(*args: Any, **kwargs: Any) -> str:  # noqa: ANN401 - as str.format has it
            fields = string.Formatter().parse(value.__self__)
            # a star fills there, and has no other meaning
            specs = [(spec or "").replace("*", "") for _, name, spec, _ in fields if name is not None]
            self._foresee_fields(specs, (args, kwargs))
            return sandboxed(*args, **kwargs)

        return bounded

    def _printed(self, value: object) -> object:
        """What is printed is data: the word None, or a place in memory, is nothing to pay for."""
        if type(value) is str:
            self.spend(TURN + len(value))
            return value
        if value is None:
            raise UnaskableRow("the template prints a null; write {{ column or '' }} where one may stand")
        if isinstance(value, jinja2.Undefined):
            return value  # it says itself what is missing, when it is printed
        if callable(value) or isinstance(value, Iterator):
            raise UnaskableRow(
                "the template prints code instead of a value: are its parentheses missing, or a `| list`?"
            )
        if isinstance(value, bytes):
            raise UnaskableRow(
                "the template prints bytes, which are no text: what text are they? A column of text holds it"
            )
        self.spend(self._weight(value))
        return value

    def _made(self, value: Any) -> Any:  # noqa: ANN401 - any value of a template
        self.spend(_size(value))
        return value

    def _weight(self, value: object) -> int:
        """Units of a value as text, all that is in it counted as often as it stands there, as far as can be paid."""
        weight, waiting = 0, [value]
        while waiting and weight <= self.left:
            value = waiting.pop()
            weight += TURN + _size(value)
            if isinstance(value, dict):
                waiting += [*value, *value.values()]
            elif isinstance(value, (list, tuple, set, frozenset)):
                waiting += value
            elif isinstance(value, jinja2.Undefined):
                str(value)  # raises, and says what is missing
        return weight

    def _bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that pays for what it reads and makes."""
        first = int(hasattr(function, "jinja_pass_arg"))  # such a filter is given the context or so before the value

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as filters have it
            self.spend(TURN)
            if name in UNWEIGHED:
                return function(*args, **kwargs)
            value, rest = args[first], [*args[first + 1 :], *kwargs.values()]
            if any(isinstance(each, int) and each > WIDTHS.get(name, each) for each in rest):
                raise UnaskableRow(f"the template's {name} is given a wild number")
            if name in LAZY:
                self.spend(_size(value) * (ELEMENT if isinstance(value, str) else 1))
            else:
                if isinstance(value, Iterator):
                    value = list(value)
                    args = (*args[:first], value, *args[first + 1 :])
                self.spend(self._weight(value) + self._weight(rest))
                self._foresee_filter(name, value, rest)
            return self._made(function(*args, **kwargs))

        return bounded

    def _foresee_filter(self, name: str, value: Any, rest: list[Any]) -> None:  # noqa: ANN401 - any value
        if name == "replace" and len(rest) >= 2:
            self._foresee_replacement(str(value), str(rest[0]), str(rest[1]))
        elif name == "join" and rest and isinstance(value, (list, tuple, dict)):
            self.spend(len(value) * self._weight(rest[0]))
        elif name == "format":
            self._foresee_fields(PERCENT_FIELD.findall(str(value)), rest)

    def _foreseen(self, called: types.BuiltinMethodType, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of a method of Python's own, once what it would make is paid for."""
        whose, name = called.__self__, called.__name__
        if name == "join" and args:
            args = (list(args[0]), *args[1:])
            self.spend(self._weight(args[0]) + len(args[0]) * self._weight(whose))
        elif name == "replace" and len(args) >= 2 and isinstance(whose, (str, bytes)):
            self._foresee_replacement(whose, *args[:2])
        elif name == "translate" and isinstance(whose, str):
            self.spend(len(whose) * self._weight(list(args)))
        elif name in PADDING:
            tabs = whose.count("\t") if isinstance(whose, str) else 0
            self.spend((tabs + 1) * sum(each for each in args if isinstance(each, int) and each > 0))
        elif name in SPLITTING:
            self.spend(_size(whose) * ELEMENT // 2)
        return args

    def _foresee_product(self, left: object, right: object) -> None:
        if isinstance(left, int) and isinstance(right, int):
            _check_bits(left.bit_length() + right.bit_length())
        elif isinstance(left, int) or isinstance(right, int):
            times, repeated = (left, right) if isinstance(left, int) else (right, left)
            if isinstance(times, int):
                self.spend(_size(repeated) * max(0, times))

    def _foresee_replacement(self, text: Any, old: Any, new: Any) -> None:  # noqa: ANN401 - text or bytes
        self.spend(text.count(old) * len(new))

    def _foresee_fields(self, specs: Sequence[str], given: object) -> None:
        """The fields of a format, each of which may print all that it is given."""
        if any(WIDE.search(spec) for spec in specs):
            raise UnaskableRow("the template has a field of wild or variable width")
        self.spend(len(specs) * self._weight(given))


def _size(value: object) -> int:
    """Units of a value, without what is in it."""
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, int):
        return value.bit_length() // 3
    return len(value) * ELEMENT if isinstance(value, (list, tuple, dict, set, frozenset)) else 0


def _check_bits(bits: int) -> None:
    if bits > NUMBER_BITS_MAX:
        raise UnaskableRow("the template makes a number without end")


def _to_json(value: object, indent: int | None = None) -> str:
    """Jinja's own `tojson` escapes for HTML, which a model would read as noise."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
