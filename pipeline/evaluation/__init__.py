"""Evaluation: a job's answers scored against gold, or compared with those of another job. Nothing is asked."""

from .compare import compare_jobs
from .score import score_job
from .text import as_json, compared_text, review_text, scored_text

__all__ = ["as_json", "compare_jobs", "compared_text", "review_text", "score_job", "scored_text"]
