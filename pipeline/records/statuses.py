"""The statuses of a row, and what they mean."""

from typing import Literal

Status = Literal["ok", "truncated", "filtered", "refused", "invalid", "failed", "pending"]
"""The status of a row. Every row has exactly one."""

STATUSES: tuple[Status, ...] = ("ok", "truncated", "filtered", "refused", "invalid", "failed", "pending")
"""All statuses, in the order in which they are shown."""

ANSWERED: tuple[Status, ...] = ("ok", "truncated", "filtered", "refused", "invalid")
"""The endpoint gave an answer, usable or not."""
USABLE: tuple[Status, ...] = ("ok", "truncated")
"""The answer can be used: scored, compared, counted as valid."""
UNUSABLE: tuple[Status, ...] = ("failed", "invalid", "filtered", "refused")
"""The row ended without a usable answer; the worst first."""
FOLLOWED_UP: tuple[Status, ...] = ("invalid", "truncated")
"""The answer may have a follow-up: a repair, or the same request with a larger `max_tokens`."""
RETRYABLE: tuple[Status, ...] = ("failed", "invalid", "truncated", "filtered", "refused")
"""The statuses that `--retry` takes."""

TEMPORARY = "unsettled"
"""The store's mark of a temporary failure: the row is shown as failed, and the next run asks it again."""
