"""A job as one HTML page with charts, to be opened in any browser."""

from .report import write_report

__all__ = ["write_report"]
