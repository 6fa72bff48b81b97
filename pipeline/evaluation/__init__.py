"""Answers scored against gold or compared with another job's."""

from .score import as_json, compare_jobs, score_job
from .text import compared_text, review_text, scored_text

__all__ = ["as_json", "compare_jobs", "compared_text", "review_text", "score_job", "scored_text"]
