"""The layout is held: layers, sizes, the first line of every file, packages imported through their front."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pipeline

PACKAGE = Path(pipeline.__file__).parent
ROOT = PACKAGE.parent
FILE_LINES_MAX, FUNCTION_LINES_MAX, PARAMETERS_MAX, TOP_LEVEL_FILES_MAX = 400, 60, 8, 10
LINT_IMPORTS = str(Path(sys.executable).with_name("lint-imports"))


@cache
def sources() -> dict[str, ast.Module]:
    paths = sorted(PACKAGE.rglob("*.py"))
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text("utf-8")) for path in paths}


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Docstrings, and the texts that stand below constants and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value


def imported_packages(name: str, tree: ast.Module) -> Iterator[tuple[int, list[str]]]:
    """Each of our own modules that a file imports from, as (line, its parts below `pipeline`)."""
    package = name.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - (node.level - 1)]
            yield node.lineno, [*above, *(node.module.split(".") if node.module else [])]


def test_the_layers_of_packages_are_kept() -> None:
    done = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_an_import_of_a_higher_layer_is_noticed(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    low = tmp_path / "pipeline" / "pacing" / "__init__.py"
    low.write_text(low.read_text("utf-8") + "from ..store import Reader as Reader\n", "utf-8")
    done = subprocess.run(
        [LINT_IMPORTS, "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "pipeline.pacing -> pipeline.store" in done.stdout


@pytest.mark.parametrize("name", sorted(sources()))
def test_a_package_is_imported_through_its_front_and_not_through_a_file_inside_it(name: str) -> None:
    package = name.split("/")[:-1]
    for line, parts in imported_packages(name, sources()[name]):
        is_file = (PACKAGE.joinpath(*parts)).with_suffix(".py").exists()
        is_inside = parts[: len(package)] == package or package[: len(parts) - 1] == parts[:-1]
        assert not is_file or len(parts) == 1 or is_inside, f"{name}:{line} imports {'.'.join(parts)}"


def test_no_file_function_or_list_of_parameters_is_too_long() -> None:
    long = [f"{path}: {lines} lines" for path in sources() if (lines := line_count(path)) > FILE_LINES_MAX]
    for path, tree in sources().items():
        for each in functions(tree):
            lines = (each.end_lineno or 0) - each.lineno + 1
            given = len([*each.args.posonlyargs, *each.args.args, *each.args.kwonlyargs])
            given -= bool(each.args.args) and each.args.args[0].arg in ("self", "cls")
            if lines > FUNCTION_LINES_MAX:
                long.append(f"{path}: {each.name} has {lines} lines")
            if given > PARAMETERS_MAX:
                long.append(f"{path}: {each.name} takes {given} parameters")
    assert long == []


def line_count(path: str) -> int:
    return len((PACKAGE / path).read_text("utf-8").splitlines())


def test_the_top_level_holds_few_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= TOP_LEVEL_FILES_MAX


def test_no_module_hides_the_function_run_or_a_library() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")} | {path.name for path in PACKAGE.glob("*/")}
    assert not (PACKAGE / "run").exists()
    assert not names & {"csv", "Manager", "Handler", "Processor", "Util", "Base", "Core", "utils", "helpers"}


@pytest.mark.parametrize("name", sorted(sources()))
def test_the_first_line_of_every_file_says_its_idea(name: str) -> None:
    first = (ast.get_docstring(sources()[name]) or "").split("\n")[0]
    assert first.endswith((".", "`.", ":")), first
    assert len(first) > 20, first


def test_every_docstring_is_whole_by_itself() -> None:
    broken = [
        text
        for tree in sources().values()
        for text in docstrings(tree)
        if text.rstrip().endswith(("…", ",", ";")) or text.lstrip().startswith("…")
    ]
    assert broken == []


def test_no_two_classes_have_one_name() -> None:
    names = [node.name for tree in sources().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_every_file_of_code_has_a_test_of_its_own() -> None:
    tests = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    untested = [
        path
        for path in sources()
        if Path(path).stem not in ("__init__", "__main__", "version")
        and not (ROOT / "tests" / Path(path).parent / f"test_{Path(path).name}").exists()
    ]
    assert tests
    assert untested == []


def test_an_ignored_lint_rule_says_why() -> None:
    bare = [
        f"{path}:{number}"
        for path in sources()
        for number, line in enumerate((PACKAGE / path).read_text("utf-8").splitlines(), 1)
        if re.search(r"# (noqa|type: ignore)", line) and not re.search(r"# (noqa|type: ignore).* (- |# )\S", line)
    ]
    assert bare == []


def test_the_command_line_imports_no_heavy_library_for_its_help() -> None:
    code = "import sys; import pipeline.cli; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"polars", "httpx", "aiohttp", "pydantic", "diskcache", "jinja2"}
