"""The version of the program, as `pyproject.toml`, `--version`, the history and every output name it."""

__version__ = "0.1.0"
