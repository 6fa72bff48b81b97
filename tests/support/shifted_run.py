"""`pipeline` under a wall clock that was set: python shifted_run.py SECONDS ARGUMENTS OF PIPELINE.

SECONDS are added to the time of day, as Python and SQLite tell it; the clocks that only run forward stay as they are.
"""

import datetime as dt
import sys
import time
from importlib import import_module

from pipeline.cli.group import main
from pipeline.store import database

PACKAGES = ("runs", "execution", "execution.live", "execution.batch.send", "results", "folder.lock", "report")


def set_clock(seconds: float) -> None:
    """Let the program's time of day be that many seconds away from the machine's."""
    of_machine, upsert_sql = time.time, database.upsert_sql

    class ShiftedDatetime(dt.datetime):
        """The class with another `now`."""

        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            """The shifted time of day."""
            return dt.datetime.now(tz) + dt.timedelta(seconds=seconds)

    for name in PACKAGES:
        import_module(f"pipeline.{name}")
    for name, module in [*sys.modules.items()]:
        if name.startswith("pipeline.") and getattr(module, "datetime", None) is dt.datetime:
            setattr(module, "datetime", ShiftedDatetime)  # noqa: B010 - mypy knows the name as a type only
    setattr(time, "time", lambda: of_machine() + seconds)  # noqa: B010
    setattr(  # noqa: B010
        database, "upsert_sql", lambda rows: upsert_sql(rows).replace("'now'", f"'now', '{seconds} seconds'")
    )


if __name__ == "__main__":
    set_clock(float(sys.argv[1]))
    main(sys.argv[2:], prog_name="pipeline")
