"""`pipeline init`: a commented job file, guessed from a table's columns."""

import json
import keyword
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ..records import BadJob
from ..tables import check_place, open_table
from ..text import one_line

ROWS_READ = 1_000
"""How many rows are read to guess what the columns hold."""
GOLD_NAMES = ("gold", "label", "labels", "class", "category", "target", "truth", "sentiment")
LABELS_MOST, LABEL_CHARACTERS_MOST = 20, 40
DEFAULT_MODEL = "gpt-6-luna"
IMAGE_ENDINGS = r"(?i)\.(png|jpe?g|gif|webp)(\?.*)?$|^data:image/"
CHAT = r'^\s*\[\s*\{.*"role"'


class Guess(NamedTuple):
    """Which column seems to hold what; None if none does."""

    chat: str | None
    prompt: str | None
    text: str | None
    gold: str | None
    labels: list[str]
    image: str | None


def write_job_file(inputs: Sequence[str], path: Path, base_url: str | None = None, model: str | None = None) -> Guess:
    """Write a commented job file for a table. Raises BadJob if the file exists, or the table cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        table = open_table(inputs, Path(folder)).head(ROWS_READ)
        rows = pl.concat([table.schema.to_frame(), *table.slices()])
    guess = guess_columns(rows)
    check_place(path)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(job_text(list(rows.columns), guess, base_url, model))
    except FileExistsError:
        raise BadJob(f"{path} is there already, and was left as it is. Name another with -o.") from None
    except OSError as error:
        raise BadJob(f"{path} cannot be written: {error.strerror}.") from None
    return guess


def guess_columns(rows: pl.DataFrame) -> Guess:
    """Guess the columns' use from their names and from their first rows."""
    chats = [column.name for column in rows if _is_chat(column)]
    texts = [column.name for column in rows if column.dtype == pl.String and column.name not in chats]
    images = [name for name in texts if _share(rows[name], IMAGE_ENDINGS) > 0.5]
    gold = next(
        (name for wanted in GOLD_NAMES for name in texts if name.lower() == wanted and _labels(rows[name])), None
    )
    plain = [name for name in texts if name not in images and name != gold]
    return Guess(
        chat="messages" if "messages" in chats else next(iter(chats), None),
        prompt="prompt" if "prompt" in texts else None,
        text=max(plain, key=lambda name: _mean_length(rows[name]), default=None),
        gold=gold,
        labels=_labels(rows[gold]) if gold is not None else [],
        image=next(iter(images), None),
    )


def job_text(columns: Sequence[str], guess: Guess, base_url: str | None, model: str | None) -> str:
    """The text of the job file, in TOML."""
    names = ", ".join(one_line(name) for name in columns)
    return "\n".join(
        [
            f"# The columns of the input: {names}",
            "# configs/README.md documents every key; `pipeline preview` shows the requests that this file makes.",
            "",
            *_endpoint(base_url, model),
            "",
            *_prompt(guess),
            "",
            "[parameters]                    # copied into the request as they are",
            *_parameters(base_url, model),
            "",
            *_answer(guess),
            "",
            "[limits]",
            f"{'# ' if base_url else ''}max_cost = 5.00                 # US dollars over all runs of this job",
            '# concurrency = "auto"          # requests at once; found out by itself, unless you give a number',
            "# requests_per_minute = 60      # found out by itself, too; set it if the endpoint wants fewer",
            "",
            "# [prices]                      # US dollars per million tokens, for models that are in no price list",
            "# input = 0.10",
            "# output = 0.40",
            "",
        ]
    )


def _endpoint(base_url: str | None, model: str | None) -> list[str]:
    if base_url is not None and base_url.startswith("local:"):
        return ["[endpoint]", f"base_url = {_toml(base_url)}   # a model on this machine: no key, no cost"]
    lines = [
        "[endpoint]",
        f"base_url = {_toml(base_url or 'https://api.openai.com/v1')}   # or any that speaks OpenAI's chat format, or",
        '                                # "local:smollm2-135m", a small model on this machine',
        f"model = {_toml(model or DEFAULT_MODEL)}",
    ]
    if base_url is None:
        lines.append('api_key_env = "OPENAI_API_KEY"   # the NAME of the variable that holds the key, never the key')
    else:
        lines.append('# api_key_env = "MY_KEY"         # the NAME of the variable that holds the key, never the key')
    return lines


def _parameters(base_url: str | None, model: str | None) -> list[str]:
    if base_url is None and model in (None, DEFAULT_MODEL):
        return [
            'reasoning_effort = "none"       # "low" reasons first: allow some thousand tokens then',
            "max_completion_tokens = 256     # the longest answer, with all reasoning; max_cost needs it",
        ]
    if base_url is not None and base_url.startswith("local:"):
        return [
            "temperature = 0                 # always the most likely answer",
            "max_tokens = 256                # the longest answer",
        ]
    return [
        "# temperature = 0               # many models that reason reject it",
        "max_tokens = 256                # the longest answer; a model that reasons needs some thousands",
    ]


def _prompt(guess: Guess) -> list[str]:
    if guess.chat is not None:
        return ["[prompt]", f"column = {_toml(guess.chat)}   # holds whole chats"]
    if guess.prompt is not None:
        return [
            "[prompt]",
            'column = "prompt"               # holds the whole prompt; or write a template in its place',
        ]
    if guess.text is None:
        return ["[prompt]", '# template = "…{{ column }}…"     # no column holds text: write what to ask']
    question = f"Which is it: {', '.join(guess.labels)}?" if guess.labels else "What is this about? One sentence."
    lines = ["[prompt]", "# A Jinja template over the columns of a row. Write your own question.", 'template = """']
    lines += [_multiline(f"{_braces(guess.text)}\n\n{question}") + '"""']
    if guess.image is not None:
        lines.append(
            f"# images = [{one_line(_toml(guess.image))}]   # this column seems to name images; this sends them along"
        )
    return lines


def _answer(guess: Guess) -> list[str]:
    if not guess.labels:
        return [
            "# [answer]                      # what an answer must be: one of these words, or JSON of a schema",
            '# labels = ["yes", "no"]',
        ]
    return [
        f"[answer]                        # the words found in {one_line(guess.gold or '')}, in the first rows",
        f"labels = {json.dumps(guess.labels, ensure_ascii=False)}",
    ]


def _braces(name: str) -> str:
    plain = name.isidentifier() and not keyword.iskeyword(name.title()) and not keyword.iskeyword(name.lower())
    return f"{{{{ {name} }}}}" if plain else f"{{{{ row[{json.dumps(name, ensure_ascii=False)}] }}}}"


def _multiline(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', '""\\"')


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _is_chat(column: pl.Series) -> bool:
    if column.dtype == pl.String:
        return _share(column, CHAT) > 0.5
    inner = getattr(column.dtype, "inner", None)
    return isinstance(inner, pl.Struct) and {"role", "content"} <= {field.name for field in inner.fields}


def _share(column: pl.Series, pattern: str) -> float:
    known = column.drop_nulls()
    return float(known.str.contains(pattern).sum()) / max(1, len(known))


def _labels(column: pl.Series) -> list[str]:
    """The few short words that a column repeats; empty if it holds anything else."""
    words = [word for word in column.drop_nulls().unique(maintain_order=True).to_list() if word.strip()]
    few = 2 <= len(words) <= min(LABELS_MOST, column.len() // 2)
    return sorted(words) if few and all(len(word) <= LABEL_CHARACTERS_MOST for word in words) else []


def _mean_length(column: pl.Series) -> float:
    known = column.drop_nulls()
    return float(known.str.len_chars().sum()) / max(1, len(known))
