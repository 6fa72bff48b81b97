"""Answer requests by Ray actors, on this machine or a cluster. The store stays with the run's own process."""

from .fleet import answer_all

__all__ = ["answer_all"]
