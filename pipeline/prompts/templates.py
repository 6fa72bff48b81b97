"""A prompt template: Jinja in a sandbox, filled in with a row's cells.

Jinja's sandbox keeps a template from the program's inside, and a cell's text is data: never a template. The same row
always gives the same prompt, so nothing random can be called. How long a template runs is not bounded: who writes the
job file is trusted, and Ctrl-C ends it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..records import BadJob, Stopped
from ..text import did_you_mean

PROMPT_CHARACTERS_MAX = 32 * 1024 * 1024
"""A longer prompt is refused: no model takes it, so the template is wrong."""
OTHER_TEMPLATES: tuple[type[nodes.Node], ...] = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
CHECK = " check"
"""The name of the filter that checks what `~` joins. With a blank in its name no template can call it."""
NOTHING_SENT = "\nNothing was sent."

Row = Mapping[str, Any]
"""A row of the table: from column to cell."""


class UnaskableRow(ValueError):
    """A row cannot be asked, by any endpoint. The message says why."""


class Template:
    """One compiled template of the job file, and the columns that it reads."""

    def __init__(self, setting: str, text: str, columns: Sequence[str]) -> None:
        """Compile `text`, the value of `setting`, for a table of these columns.

        Raises BadJob for a text that is not a template, and for a column that does not exist.
        """
        environment = _Environment()
        try:
            tree = environment.parse(text)
            names = meta.find_undeclared_variables(tree) - set(environment.globals)
            if any(tree.find(kind) for kind in OTHER_TEMPLATES):
                raise BadJob(f"{setting}: a template cannot include, import or extend another.{NOTHING_SENT}")
            for joined in tree.find_all(nodes.Concat):  # Jinja does not pass its parts to `finalize`
                joined.nodes = [nodes.Filter(part, CHECK, [], [], None, None) for part in joined.nodes]
            self._template = environment.from_string(tree)
            self._template.globals = dict(self._template.globals)  # a ChainMap, which is slow to copy for each row
        except jinja2.TemplateSyntaxError as error:
            raise BadJob(f"{setting}, line {error.lineno}: {error.message}{NOTHING_SENT}") from None
        except (jinja2.TemplateError, SyntaxError, RecursionError, MemoryError, ValueError, AssertionError) as error:
            raise BadJob(f"{setting} cannot be compiled: {str(error) or type(error).__name__}{NOTHING_SENT}") from None
        self._whole_row = "row" in names and "row" not in columns
        for name in sorted(names - set(columns) - ({"row"} if self._whole_row else set())):
            raise BadJob(f"{setting}: the input has no column {name!r}{did_you_mean(name, columns)}{NOTHING_SENT}")
        self.columns = tuple(columns) if self._whole_row else tuple(name for name in columns if name in names)
        """The columns that the template reads, in the table's order."""

    def render(self, row: Row) -> str:
        """The prompt of a row. Raises UnaskableRow for whatever goes wrong with this row alone."""
        given = {name: row[name] for name in self.columns}
        if self._whole_row:
            given["row"] = dict(given)
        try:
            # what `Template.generate` does, but for a copy of the variables and a rewritten traceback
            context = self._template.new_context({**self._template.globals, **given}, shared=True)
            return _join_within_cap(self._template.root_render_func(context))
        except (UnaskableRow, Stopped):  # a signal raises Stopped wherever it strikes
            raise
        except Exception as error:  # noqa: BLE001 - a template is the user's code, and may raise anything
            raise UnaskableRow(f"the template fails on this row: {str(error) or type(error).__name__}") from None


class _Undefined(jinja2.StrictUndefined):
    """Fails also where it is printed inside of a list or a dict, which show the repr of what they hold."""

    __slots__ = ()
    __repr__ = jinja2.StrictUndefined.__str__


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without chance, and with a check of what is printed."""

    def __init__(self) -> None:
        super().__init__(
            undefined=_Undefined,
            finalize=_finalize,
            autoescape=False,  # prompts are text, not HTML
            optimized=False,  # constants are evaluated while a row is rendered, where a signal ends it
        )
        self.filters["tojson"] = _to_json
        self.filters[CHECK] = _check_printable
        # nothing random: a row's stored answer is found by its prompt
        del self.filters["random"]
        del self.globals["lipsum"]


@jinja2.pass_context
def _finalize(_context: Context, value: object) -> object:
    """Check what the template prints. With `pass_context`, because else Jinja evaluates constants while it compiles."""
    return _check_printable(value)


def _check_printable(value: object) -> object:
    """The value as it is. Raises UnaskableRow where its text would be Python's and not the row's."""
    if value is None:
        raise UnaskableRow("the template prints a null; write {{ column or '' }} where a cell may be null")
    if isinstance(value, jinja2.Undefined):
        return value  # fails when it is printed, and says what is missing
    if callable(value) or isinstance(value, Iterator):
        raise UnaskableRow("the template prints code instead of a value; are parentheses missing, or a `| list`?")
    if isinstance(value, bytes):
        raise UnaskableRow("the template prints bytes, which are not text; use a column of text")
    return value


def _join_within_cap(parts: Iterable[str]) -> str:
    kept, length = [], 0
    for part in parts:
        kept.append(part)
        length += len(part)
        if length > PROMPT_CHARACTERS_MAX:
            raise UnaskableRow(f"the prompt is longer than {PROMPT_CHARACTERS_MAX:,} characters")
    return "".join(kept)


def _to_json(value: object, indent: int | None = None) -> str:
    """JSON as it is. Jinja's own `tojson` escapes for HTML, which a model would read as noise."""
    return json.dumps(value, ensure_ascii=False, indent=indent, default=str)
