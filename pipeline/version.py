"""The version of the program, as `pyproject.toml`, `--version`, the history and every output name it."""

import re

__version__ = "0.1.0"


def is_newer(version: object) -> bool:
    """Whether a version is newer than this program's; False if `version` is not a version."""
    return isinstance(version, str) and _numbers(version) > _numbers(__version__)


def _numbers(version: str) -> list[int]:
    """The numbers that a version begins with: [1, 2, 3] of `1.2.3rc1`."""
    found = re.match(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,9}", version)
    return [int(number) for number in found[0].split(".")] if found is not None else []
