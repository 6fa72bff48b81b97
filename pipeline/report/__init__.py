"""A job as one HTML page, with charts."""

from .report import check_page, write, write_report

__all__ = ["check_page", "write", "write_report"]
