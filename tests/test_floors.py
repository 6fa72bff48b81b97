"""The house: which file stands on which floor, which library has which home. A file imports only from floors below."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent

FLOORS = (
    (
        "nouns",
        {
            "records",
            "folders",
            "masks",
            "templates",
            "job",
            "mounts",
            "watermark",
            "local_model",
            "shapes",
            "strict",
            "examples",
            "images",
            "wire",
        },
    ),
    (
        "tools",
        {
            "tables",
            "prompts",
            "schema",
            "typed",
            "forms",
            "client",
            "replies",
            "throttle",
            "retry",
            "store",
            "digests",
            "lock",
            "prices",
            "progress",
            "history",
            "sheets",
            "scoring",
            "figures",
            "charts",
            "on_finish",
        },
    ),
    ("the desk, and what it recorded", {"desk", "walks", "kept", "calls"}),
    ("answering", {"plan", "live", "batch", "cluster", "columns", "spending", "salvage", "forecast", "control"}),
    ("looking", {"opened", "scoresheet", "report"}),
    ("verbs", {"runs", "review", "judging", "status", "estimate", "init"}),
    ("doors", {"cli", "__init__", "__main__"}),
)

# On one floor a file may be told in terms of another that is named here, and never in a circle.
STEPS_ON_ONE_FLOOR = {
    ("job", "records"),
    ("job", "examples"),
    ("job", "shapes"),
    ("templates", "records"),
    ("local_model", "records"),
    ("local_model", "folders"),
    ("watermark", "records"),
    ("watermark", "folders"),
    ("shapes", "records"),
    ("strict", "shapes"),
    ("examples", "records"),
    ("examples", "shapes"),
    ("images", "records"),
    ("images", "templates"),
    ("typed", "schema"),
    ("charts", "figures"),
    ("walks", "desk"),
    ("kept", "walks"),
    ("control", "live"),
    ("cluster", "live"),
    ("calls", "desk"),
    ("__main__", "cli"),
}

HOMES = {
    "click": {"cli"},
    "pydantic": {"job", "client"},  # the client holds the key as pydantic's SecretStr
    "pydantic_core": {"job"},
    # JSON of records and bodies
    "msgspec": {
        "records",
        "forms",
        "replies",
        "prompts",
        "schema",
        "plan",
        "desk",
        "history",
        "live",
        "batch",
        "sheets",
        "cluster",
        "review",
        "runs",
        "watermark",
        "salvage",
        "judging",
        "control",
        "on_finish",
        "status",
        "cli",
    },
    "httpx": {"client", "wire"},
    "aiohttp": {"wire"},
    "diskcache": {"store"},
    "filelock": {"lock"},
    "jinja2": {"templates", "report"},
    "jsonschema_rs": {"schema"},
    "json_repair": {"schema"},
    "genai_prices": {"prices"},
    "tqdm": {"progress"},
    "xllamacpp": {"local_model"},
    "ray": {"cluster"},
    "xlsxwriter": {"tables"},
    "polars": {
        "digests",
        "tables",
        "plan",
        "columns",
        "typed",
        "runs",
        "review",
        "scoring",
        "judging",
        "figures",
        "report",
        "forecast",
        "init",
    },
    "altair": {"charts"},
    "vl_convert": {"charts"},
}


@cache
def modules() -> dict[str, ast.Module]:
    return {path.stem: ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.glob("*.py"))}


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Every name that a file imports, however deep inside, and whether it is one of ours."""
    for node in ast.chain(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            if node.module:
                yield node.module.split(".")[0], True
            else:
                yield from ((alias.name, True) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], False


def floor_of(name: str) -> int:
    return next(number for number, (_, files) in enumerate(FLOORS) if name in files)


def test_every_file_stands_on_exactly_one_floor() -> None:
    placed = [name for _, files in FLOORS for name in files]
    assert sorted(placed) == sorted(modules())


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_file_imports_only_from_floors_below_its_own(name: str) -> None:
    for imported, ours in imports(modules()[name]):
        if not ours:
            assert imported != "pipeline", f"{name} imports ours absolutely"
            continue
        if imported == "__version__" or (name, imported) in STEPS_ON_ONE_FLOOR:
            continue
        assert imported in modules(), f"{name} imports {imported}, which is no file"
        assert floor_of(imported) < floor_of(name), f"{name} reaches up or sideways to {imported}"


def test_the_steps_on_one_floor_are_taken_and_lead_in_no_circle() -> None:
    taken = {(name, imported) for name, tree in modules().items() for imported, ours in imports(tree) if ours}
    assert taken >= STEPS_ON_ONE_FLOOR, "a step that nobody takes"
    assert all(floor_of(name) == floor_of(imported) for name, imported in STEPS_ON_ONE_FLOOR)
    TopologicalSorter({name: {to for at, to in STEPS_ON_ONE_FLOOR if at == name} for name in modules()}).prepare()


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_is_imported_only_in_its_home(library: str) -> None:
    found = {
        name for name, tree in modules().items() for imported, ours in imports(tree) if imported == library and not ours
    }
    assert found == HOMES[library]


def test_every_library_has_a_home() -> None:
    found = {imported for tree in modules().values() for imported, ours in imports(tree) if not ours}
    assert found - sys.stdlib_module_names <= set(HOMES), "give it a home, or do without"


def test_the_first_line_of_every_file_says_its_idea() -> None:
    for name, tree in modules().items():
        first = (ast.get_docstring(tree) or "").splitlines()[0]
        assert first.endswith((".", "`.", ":")), f"{name}: {first!r}"
        assert len(first) > 20, name


def test_a_floor_that_is_reached_upwards_is_noticed() -> None:
    tree = ast.parse("def f():\n    from .runs import run\n    from . import cli\n")
    assert list(imports(tree)) == [("runs", True), ("cli", True)]
    assert floor_of("runs") > floor_of("live")
