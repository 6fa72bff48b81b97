"""The commands that show results: show, export, score, compare, report, history."""

from pathlib import Path
from typing import Any

import click

from .group import main
from .options import ANSWER, AS_JSON, JOB
from .screen import exact_json, json_text, print_lines, print_message, terminal_width


@main.command()
@JOB
@click.option("--status", metavar="STATUS", help="only rows of this status, such as failed")
@click.option("--row", type=click.IntRange(1), help="one row, counted from 1")
@click.option("-n", "most", type=click.IntRange(1), default=20, show_default=True, help="how many rows")
@click.option("--reasoning", is_flag=True, help="also what the model thought, where it shows that")
def show(job: str, status: str | None, row: int | None, most: int, reasoning: bool) -> None:
    """Show prompts, answers and errors as text. JOB: an output, or its job folder."""
    from ..records import STATUSES, BadJob
    from ..results import show_rows

    if status is not None and status not in STATUSES:
        raise BadJob(f"--status {status}: there are {', '.join(STATUSES)}.")
    print_lines(show_rows(job, status=status, row=row, most=most, reasoning=reasoning))


@main.command()
@JOB
@click.option("-o", "--output", type=click.Path(path_type=Path), help="another table than the job's own")
@click.option("--for-excel", is_flag=True, help="begin CSV with a byte order mark, so that Excel reads it as UTF-8")
@click.option(
    "--escape-formulas", is_flag=True, help="put an apostrophe before cells and names that would be run as a formula"
)
def export(job: str, output: Path | None, for_excel: bool, escape_formulas: bool) -> None:
    """Write the table as far as it is known. JOB: an output, or its job folder."""
    from ..results import export_table
    from ..tables import SpreadsheetOptions

    path, tally = export_table(
        job, output, SpreadsheetOptions(byte_order_mark=for_excel, escape_formulas=escape_formulas)
    )
    print_message(f"Wrote {path}: {tally.rows - tally.pending:,} of {tally.rows:,} rows have an outcome.")


@main.command()
@JOB
@click.option("--gold", required=True, metavar="COLUMN", help="the input's column of correct answers")
@ANSWER
@click.option("--by", metavar="COLUMN", help="also the accuracy for each value of this column")
@click.option("--review", type=click.Path(path_type=Path), help="write a table of wrong and unsure rows, worst first")
@click.option("-n", "most", type=click.IntRange(1), default=1000, show_default=True, help="how many rows to review")
@AS_JSON
def score(job: str, as_json: bool, **asked: Any) -> None:
    """Score the answers against gold. JOB: an output, or its job folder."""
    from ..evaluation import as_json as json_of
    from ..evaluation import review_text, score_job, scored_text

    scored = score_job(job, **asked)
    print_lines(map(exact_json, json_of(scored)) if as_json else scored_text(scored, terminal_width()))
    if asked["review"] is not None:
        print_message(review_text(scored, asked["review"], asked["most"]))


@main.command()
@click.argument("jobs", metavar="JOB JOB", nargs=2)
@click.option("--gold", metavar="COLUMN", help="an input's column of correct answers: which job is better?")
@ANSWER
@click.option("--key", metavar="COLUMN", help="a column that identifies rows, if the inputs are not the same")
@AS_JSON
def compare(jobs: tuple[str, str], as_json: bool, **asked: Any) -> None:
    """Compare two jobs' answers to the same rows. JOB: an output, or its job folder."""
    from ..evaluation import as_json as json_of
    from ..evaluation import compare_jobs, compared_text

    compared = compare_jobs(*jobs, **asked)
    print_lines(map(exact_json, json_of(compared)) if as_json else compared_text(compared, terminal_width()))


@main.command()
@JOB
@click.option("-o", "--output", type=click.Path(path_type=Path), help="the page (default: OUTPUT.report.html)")
@click.option("--gold", metavar="COLUMN", help="the input's column of correct answers: adds what `score` computes")
@ANSWER
def report(job: str, output: Path | None, gold: str | None, answer: str | None) -> None:
    """Write one HTML page about a job's results. JOB: an output, or its job folder."""
    import msgspec

    from ..evaluation import score_job
    from ..report import write_report

    score = None if gold is None else msgspec.to_builtins(score_job(job, gold=gold, answer=answer))
    path = write_report(job, output, score=score)
    print_message(f"Wrote {path}: one page, which opens in any browser. Nothing was sent.")


@main.command()
@JOB
@AS_JSON
def history(job: str, as_json: bool) -> None:
    """List every run: when, who, what changed, how it ended. JOB: an output, or its job folder."""
    from ..results import history_text, job_history
    from ..text import printable

    runs = job_history(job)
    click.echo(json_text(runs) if as_json else printable("\n".join(history_text(runs))))
