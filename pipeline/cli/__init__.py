"""The command line: each command makes a Job, calls one function, and prints what came of it.

Commands import what they use when they run, so that `pipeline --help` stays fast.
"""

from . import results, start, watch
from .group import SECTIONS, main

__all__ = ["SECTIONS", "main", "results", "start", "watch"]
