"""The command line: each command makes a Job, calls one function, and prints what came of it."""

from .group import main

__all__ = ["main"]
