"""The table that every benchmark asks: so many rows of one question each, written in slices whatever their number."""

import random
from collections.abc import Iterator
from pathlib import Path

MODEL = "test-model"
TEMPLATE = "Answer in one word. {{ question }}"
WORDS = ("river", "clock", "letter", "harvest", "lantern", "orchard", "quarrel", "winter")
WORDS_A_QUESTION = 11
ROWS_AT_ONCE = 50_000


def questions(rows: int) -> Iterator[str]:
    """About 100 characters each, no two the same, the same ones every time; nothing in them that CSV would quote."""
    chance = random.Random(1)
    for number in range(rows):
        yield f"Question {number}: {' '.join(chance.choices(WORDS, k=WORDS_A_QUESTION))}?"


def prompt_of(question: str) -> str:
    return TEMPLATE.replace("{{ question }}", question)


def write_table(table: Path, rows: int) -> None:
    """As CSV or as Parquet."""
    lines = table.with_suffix(".csv")
    with lines.open("w", encoding="utf-8") as file:
        file.write("id,question\n")
        file.writelines(f"{number},{question}\n" for number, question in enumerate(questions(rows)))
    if table != lines:
        import polars as pl  # noqa: PLC0415 - for a process that measures others, see `apart`

        pl.scan_csv(lines).sink_parquet(table, row_group_size=ROWS_AT_ONCE)
        lines.unlink()


def write_prompts(prompts: Path, rows: int) -> None:
    """One a line, as the template makes them of the table."""
    with prompts.open("w", encoding="utf-8") as file:
        file.writelines(f"{prompt_of(question)}\n" for question in questions(rows))
