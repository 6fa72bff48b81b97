"""What was asked for: one frozen Job, every mistake in it found before anything is sent.

A setting is one field here: its name, type, default and help are read from it by the command line (`--set`), by the
README's table and by the JSON schema that editors use.
"""

import difflib
import hashlib
import importlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from ..records import BadJob, Status
from .added_columns import ADDED_COLUMNS
from .examples import read_examples

OWN_PARAMETERS = ("model", "messages", "stream", "n")
PYDANTIC_MODEL = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
OUTPUT_CAPS = ("max_completion_tokens", "max_tokens")
"""The parameters that bound an answer's length."""
SECRET = re.compile("auth|key|token|secret|cookie", re.IGNORECASE)
"""A header of such a name holds a secret."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def duration_seconds(text: str) -> float:
    """Seconds of `8h`, `7h30m`, `90s`; raises ValueError for anything else."""
    match = DURATION.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not a duration; write it as 8h, 7h30m or 90s")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _is_duration(text: str) -> str:
    duration_seconds(text)
    return text


Duration = Annotated[str, AfterValidator(_is_duration)]


def _names_a_variable(text: str) -> str:
    if text and not VARIABLE.fullmatch(text):
        # not quoted: it may well be the key itself
        raise ValueError("this is no name of an environment variable; the key itself belongs in one, not here")
    return text


VariableName = Annotated[str, AfterValidator(_names_a_variable)]
Price = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """One table of the job file: unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Endpoint(Section):
    """Who is asked."""

    base_url: str = Field(
        description="where the API stands, up to and with `/v1`; or `local:smollm2-135m`, or `local:path/to.gguf`"
    )
    model: str = Field(default="", description="the model's name, as the endpoint knows it; not needed with `local:`")
    api_key_env: VariableName = Field(
        default="", description="the name of the environment variable that holds the key, never the key"
    )
    api_key_default: str = Field(
        default="", repr=False, description="a key for when it is not set; only one that its owner prints in public"
    )
    name: str = Field(
        default="", description="answers are filed under it, so that a server may move; default: the base URL"
    )
    revision: str = Field(default="", description="change it when the weights behind a model's name have changed")
    headers: dict[str, str] = Field(default={}, repr=False, description="more HTTP headers for each request")
    timeout_seconds: float = Field(default=600, gt=0, description="the total deadline of one attempt")
    plain_http: bool = Field(default=False, description="send the key over http:// to a host that is not this machine")

    @field_validator("base_url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        if url.startswith("local:"):
            return url
        parts = urlsplit(url)
        # asked before anything quotes the address
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("a key or a query does not belong in the address; keys go by endpoint.api_key_env")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a web address; it begins with https://, http:// or local:")
        return url.rstrip("/").removesuffix("/chat/completions")

    @model_validator(mode="after")
    def _names_its_model_and_keeps_its_key(self) -> Self:
        if not self.model and not self.is_local:
            raise ValueError("endpoint.model is missing; name it in the job file (-c), or by -m")
        parts = urlsplit(self.base_url)
        has_key = self.api_key_env or self.api_key_default or self.secret_headers
        if parts.scheme == "http" and has_key and not self.plain_http and parts.hostname not in LOOPBACK:
            raise ValueError(
                "the key would travel unencrypted over http://; use https://, or set endpoint.plain_http = true"
            )
        return self

    @property
    def is_local(self) -> bool:
        """The model runs on this machine, inside this program."""
        return self.base_url.startswith("local:")

    @property
    def secret_headers(self) -> list[str]:
        """The values of headers that, by their names, hold a secret."""
        return [value for name, value in self.headers.items() if SECRET.search(name)]

    @property
    def filed_under(self) -> str:
        """The name that answers are filed under."""
        return self.name or self.base_url

    @property
    def host(self) -> str:
        """Where the data goes, for a person."""
        return "this machine" if self.is_local else urlsplit(self.base_url).netloc

    def key(self) -> SecretStr | None:
        """The API key, masked; None if the job names none. Raises BadJob when its variable is not set."""
        if not self.api_key_env and not self.api_key_default:
            return None
        found = os.environ.get(self.api_key_env, "") if self.api_key_env else ""
        key = found.strip() or self.api_key_default
        if not key:
            # a name is in capitals; anything else may be the key itself, put where its variable's name belongs
            name = self.api_key_env if self.api_key_env.isupper() else "NAME"
            raise BadJob(
                f"The environment variable that endpoint.api_key_env names is not set.\n"
                f"Nothing was sent. Set it and run the same command again:  export {name}=…"
            )
        return SecretStr(key)


class Prompt(Section):
    """What is asked of each row."""

    template: str | None = Field(
        default=None, description="a Jinja template over the row's columns; `row['any name']` for odd column names"
    )
    column: str = Field(
        default="prompt",
        description="without a template: the column that holds the prompt, or whole chats (`messages`)",
    )
    system: str | None = Field(default=None, description="a system message before each prompt; a Jinja template too")
    examples: str | list[dict[str, Any]] = Field(
        default=[],
        description="rows with their answers, shown to the model before each prompt: a CSV, TSV or NDJSON file, or "
        "tables [[prompt.examples]]; their answers stand in the typed columns, or without [answer] in `answer`",
    )
    images: list[str] = Field(
        default=[],
        description="columns of images to send along: paths (from the input's folder), web addresses, or bytes",
    )

    @property
    def example_rows(self) -> list[dict[str, Any]]:
        """The examples; a file of them was read as the job was loaded."""
        return self.examples if isinstance(self.examples, list) else []

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.template is not None and "column" in self.model_fields_set:
            raise ValueError("give prompt.template or prompt.column, not both")
        return self


def _all_differ(words: list[str] | None) -> list[str] | None:
    twice = sorted({word for word in words or () if (words or []).count(word) > 1})
    if twice:
        raise ValueError(f"listed twice: {', '.join(twice)}")
    return words


class AnswerSection(Section):
    """What an answer must be."""

    labels: list[str] | None = Field(default=None, description="one of these words, in the column `label`")
    multi: bool = Field(default=False, description="any number of the labels, as a list")
    json_schema: str | dict[str, Any] | None = Field(
        default=None,
        alias="schema",
        description="a JSON Schema: a file, the table [answer.schema], or a Pydantic model as `module:Class`; "
        "a column per property",
    )
    repairs: int = Field(
        default=2, ge=0, le=10, description="an answer that does not fit is asked for again, so many times at most"
    )
    grow_on_truncation: int | None = Field(
        default=None, gt=0, description="a truncated answer is asked for once more, with this larger `max_tokens`"
    )
    keep_old: bool = Field(
        default=False, description="take answers to an earlier contract of this job where they fit the present one"
    )
    name: str = Field(default="label", min_length=1, description="another name for the column `label`")
    samples: int = Field(
        default=1, ge=1, le=100, description="ask each row so many times; shown is what most of its answers hold"
    )
    models: list[str] | None = Field(
        default=None,
        min_length=1,
        description="ask each of these in place of `endpoint.model`, each at its own pace; shown is what most hold",
    )
    logprobs: bool = Field(
        default=False,
        description="ask for the tokens' probabilities: the column `confidence`, where the endpoint tells",
    )

    @model_validator(mode="after")
    def _one_contract(self) -> Self:
        if self.labels is not None and self.json_schema is not None:
            raise ValueError("give answer.labels or answer.schema, not both")
        if self.multi and self.labels is None:
            raise ValueError("answer.multi is for answer.labels, which are not given")
        return self

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: list[str] | None) -> list[str] | None:
        if labels is not None and not labels:
            raise ValueError("no label is given")
        if any(not label.strip() for label in labels or ()):
            raise ValueError("a label is blank; what answers nothing is a label of its own, such as none")
        return _all_differ(labels)

    @field_validator("models")
    @classmethod
    def _models_differ(cls, models: list[str] | None) -> list[str] | None:
        return _all_differ(models)

    @property
    def contract(self) -> dict[str, Any] | None:
        """The JSON Schema that an answer is held to; None for free text. It does not know the column's name."""
        if self.labels is not None:
            label: dict[str, Any] = {"type": "string", "enum": self.labels}
            return {
                "type": "object",
                "properties": {self.label_property: {"type": "array", "items": label} if self.multi else label},
                "required": [self.label_property],
                "additionalProperties": False,
            }
        return self.json_schema if isinstance(self.json_schema, dict) else None

    @property
    def label_property(self) -> str:
        """What the model calls the label, or the list of them."""
        return "labels" if self.multi else "label"


class Columns(Section):
    """Settings that a row may have of its own; null is the job's."""

    model: str | None = Field(default=None, description="the column that names the model to ask")
    max_tokens: str | None = Field(default=None, description="the column with the most tokens an answer may have")


class Limits(Section):
    """How fast, how much, how long."""

    concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        default="auto", description="requests in flight at once; `auto` finds out how many help, up to 1,024"
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="never more requests than this in a minute"
    )
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="never more tokens than this in a minute, prompts and answers"
    )
    max_cost: float | None = Field(default=None, gt=0, description="US dollars over the job folder's life; a hard cap")
    reserve_tokens: int | None = Field(
        default=None,
        gt=0,
        description="output tokens set aside for each request under `max_cost`, where no `max_tokens` bounds them",
    )
    max_runtime: Duration | None = Field(default=None, description="stop and drain after this long, such as `7h30m`")
    max_failures: float | None = Field(
        default=None,
        ge=0,
        description="stop when more rows than this end without an answer: a number; below 1, a share of the run's rows",
    )
    give_up_after: Duration = Field(default="30m", description="stop when nothing was answered for so long")

    @property
    def width(self) -> int:
        """How many requests may be in flight at the start: all, if a number is given."""
        return 8 if self.concurrency == "auto" else self.concurrency

    def tuned(self, changes: Mapping[str, Any]) -> Self:
        """The same with other values, by name. Raises BadJob for a wrong one."""
        try:
            return type(self).model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            told = {
                str(each["loc"][0]): each["msg"] for each in error.errors()
            }  # of a union's members, the last speaks
            lines = [f"limits.{name}: {message}" for name, message in told.items()]
            raise BadJob("\n".join([*lines, "Nothing was changed."])) from None


class ModelPrices(Section):
    """US dollars per million tokens."""

    input: Price | None = Field(default=None, description="prompt tokens")
    cached_input: Price | None = Field(
        default=None, description="prompt tokens that the endpoint had cached; default: `input`"
    )
    output: Price | None = Field(default=None, description="completion tokens, hidden reasoning included")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("give both prices.input and prices.output, or neither")
        if self.cached_input is not None and self.input is None:
            raise ValueError("prices.cached_input is given, but not prices.input and prices.output")
        return self


class Prices(ModelPrices):
    """US dollars per million tokens, over the price list."""

    models: dict[str, ModelPrices] = Field(
        default={}, description='of single models by name, over these: `[prices.models."gpt-x"]` with the same keys'
    )

    def of(self, model: str) -> ModelPrices:
        """What the job file says of a model; its prices are None where it says nothing."""
        return self.models.get(model, self)


class OutputSection(Section):
    """What is written."""

    prefix: str = Field(default="", description="before the name of every added column")
    columns: list[str] | None = Field(default=None, description="which added columns; default: all")
    job_dir: str = Field(default="", description="where answers are kept; default: the output's name with `.job`")
    shared: bool = Field(
        default=False, description="the job folder is its group's too: colleagues may resume, export and show"
    )


class RunSection(Section):
    """How requests travel."""

    how: Literal["live", "batch", "ray"] = Field(
        default="live",
        description="`live`: by this process; `batch`: by the provider's Batch API, within a day; `ray`: by Ray actors",
    )
    batch_requests: int = Field(default=50_000, ge=1, description="`batch`: the most requests in one batch")
    poll_seconds: float = Field(default=60, gt=0, description="`batch`: how often is asked whether a batch is done")
    workers: int = Field(default=2, ge=1, description="`ray`: how many actors; limits are divided among them")
    address: str = Field(
        default="",
        description="`ray`: `auto` or `head:6379`, of the cluster that this machine is in; default: its own cores",
    )


class JobFile(Section):
    """The job file: every key that it may hold."""

    endpoint: Endpoint
    prompt: Prompt = Prompt()
    parameters: dict[str, Any] = Field(
        default={}, description="passed into the request's body as they are; not model, messages, stream or n"
    )
    answer: AnswerSection = AnswerSection()
    columns: Columns = Columns()
    limits: Limits = Limits()
    prices: Prices = Prices()
    output: OutputSection = OutputSection()
    run: RunSection = RunSection()

    @field_validator("parameters")
    @classmethod
    def _not_ours(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(parameters) & set(OWN_PARAMETERS))
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by the program itself, not as a parameter")
        try:
            json.dumps(parameters, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not fit for JSON: {error}") from None
        return parameters

    @model_validator(mode="before")
    @classmethod
    def _first_model(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        """Where several models are named, the endpoint needs no other."""
        endpoint, answer = (values.get(name) if isinstance(values, dict) else None for name in ("endpoint", "answer"))
        models = answer.get("models") if isinstance(answer, dict) else None
        if not isinstance(endpoint, dict) or not isinstance(models, list) or not models:
            return values
        return {**values, "endpoint": {"model": models[0], **endpoint}}

    @model_validator(mode="after")
    def _models_can_be_asked(self) -> Self:
        if self.answer.models is not None and self.endpoint.is_local:
            raise ValueError("answer.models: one model runs on this machine at a time; name one, in endpoint.base_url")
        if self.columns.model is not None and self.endpoint.is_local:
            raise ValueError("columns.model: one model runs on this machine at a time, and endpoint.base_url names it")
        if self.answer.models is not None and self.columns.model is not None:
            raise ValueError("give answer.models or columns.model, not both")
        return self

    @model_validator(mode="after")
    def _columns_exist(self) -> Self:
        taken = [name for name in self.typed_columns if name in self._columns_beside_typed]
        if taken:
            where = "answer.name" if self.answer.labels is not None else "answer.schema"
            raise ValueError(f"{where}: {', '.join(taken)}: a column of this name is added anyway; choose another")
        wrong = [name for name in self.output.columns or () if name not in self.added_columns]
        if wrong:
            raise ValueError(f"output.columns: {_near(wrong[0], self.added_columns, 'no such added column')}")
        if self.answer.contract is not None and "response_format" in self.parameters:
            raise ValueError("give [answer] or parameters.response_format, not both")
        if self.endpoint.is_local and self.run.how == "batch":
            raise ValueError("run.how: a model on this machine has no Batch API; it is asked live")
        return self

    @model_validator(mode="after")
    def _grows(self) -> Self:
        more, least = self.answer.grow_on_truncation, max(self.output_caps.values(), default=0)
        if more is not None and more <= least:
            raise ValueError(f"answer.grow_on_truncation of {more:,} is to be more than the {least:,} of max_tokens")
        if more is not None and self.columns.max_tokens is not None:
            # which rows would grow is not known where keys alone count, without the rows' own caps
            raise ValueError("give answer.grow_on_truncation or columns.max_tokens, not both")
        return self

    @property
    def output_caps(self) -> dict[str, int]:
        """The parameters that bound an answer's length, as far as they are given."""
        given = {name: self.parameters.get(name) for name in OUTPUT_CAPS}
        # -1 is without end to some servers, and true is an int to Python
        return {name: cap for name, cap in given.items() if type(cap) is int and cap > 0}

    def capped(self, max_tokens: int) -> dict[str, int]:
        """The parameters that bound an answer's length by this number, under the name that the job has for it."""
        return dict.fromkeys(self.output_caps or ("max_tokens",), max_tokens)

    @property
    def typed_columns(self) -> dict[str, dict[str, Any]]:
        """The typed columns of the answer: each name with the JSON Schema of its values."""
        contract = self.answer.contract
        if contract is None:
            return {}
        if self.answer.labels is not None:
            return {self.answer.name: contract["properties"][self.answer.label_property]}
        properties = contract.get("properties")
        return dict(properties) if isinstance(properties, dict) else {}

    @property
    def added_columns(self) -> tuple[str, ...]:
        """All columns that an output may add, before any prefix, in order."""
        first, *others = self._columns_beside_typed
        return (first, *self.typed_columns, *others)

    @property
    def _columns_beside_typed(self) -> tuple[str, ...]:
        holds = {
            "always": True,
            "samples": self.samples_per_row > 1,
            "logprobs": self.answer.logprobs,
            "contract": self.answer.contract is not None,
        }
        return tuple(column.name for column in ADDED_COLUMNS if holds[column.when])

    @property
    def models(self) -> tuple[str, ...]:
        """Whom each row is asked of."""
        return tuple(self.answer.models or (self.endpoint.model,))

    @property
    def samples_per_row(self) -> int:
        """How many requests a row becomes."""
        return self.answer.samples * len(self.models)

    def without_secrets(self) -> dict[str, Any]:
        """All settings as JSON values, for history and metadata; without keys and the headers' values."""
        settings = self.model_dump(mode="json", by_alias=True, include=set(JobFile.model_fields))
        settings["endpoint"]["headers"] = dict.fromkeys(self.endpoint.headers, "***")
        settings["endpoint"].pop("api_key_default")
        if "column" not in self.prompt.model_fields_set:
            settings["prompt"].pop("column")
        return settings

    def seen_by_model(self) -> dict[str, Any]:
        """The settings that decide what the model sees, by dotted name: a change in one asks every row again."""
        return {
            "endpoint.name": self.endpoint.filed_under,
            "endpoint.model": self.endpoint.model if self.answer.models is None else None,
            "endpoint.revision": self.endpoint.revision,
            "prompt.template": self.prompt.template,
            "prompt.column": self.prompt.column if self.prompt.template is None else None,
            "prompt.system": self.prompt.system,
            "parameters": self.parameters,
            "answer": self.answer.contract,
            "answer.models": self.answer.models,
            "answer.logprobs": self.answer.logprobs or None,
            "prompt.examples": self.prompt.examples or None,
            "prompt.images": self.prompt.images or None,
            "columns.model": self.columns.model,
            "columns.max_tokens": self.columns.max_tokens,
        }


def settings_id(seen_by_model: Mapping[str, Any]) -> str:
    """8 hexadecimal digits that tell one `Job.seen_by_model` from another."""
    return hashlib.sha256(json.dumps(seen_by_model, sort_keys=True).encode()).hexdigest()[:8]


class ThisRun(Section):
    """What is wanted of this run alone; never in the job file."""

    limit: int | None = Field(default=None, ge=1)
    sample: int | None = Field(default=None, ge=1)
    seed: int = 0
    retry: tuple[Status, ...] = ()
    job_dir: Path | None = None
    assume_yes: bool = False
    no_wait: bool = False
    """Under `run.how = "batch"`: send what can be sent, fetch what is done, and end."""
    wait_for_endpoint: bool = False
    """The endpoint may be down as the run begins, or ask for a long wait: it is waited for."""
    verbosity: int = 0
    """-1: silent unless something needs a person; 1: every refusal is told."""

    @model_validator(mode="after")
    def _one_pilot(self) -> Self:
        if self.limit is not None and self.sample is not None:
            raise BadJob("Give --limit or --sample, not both. Nothing was sent.")
        return self


def default_job_folder(output: Path) -> Path:
    """The job folder of an output, where none is named: OUTPUT.job."""
    return output.parent / f"{output.name}.job"


class Job(JobFile):
    """Everything that was asked for: the job file's settings, the input, the output, and what this run alone wants."""

    inputs: tuple[str, ...] = Field(min_length=1)
    """Paths, globs, or `-` for standard input."""
    output_file: Path | None = None
    """None where nothing is written (`preview`)."""
    home: Path = Path()
    """The folder that paths in the job file are relative to."""
    this_run: ThisRun = ThisRun()

    @property
    def folder(self) -> Path:
        """The job folder: answers, lock, history. Raises BadJob without an output."""
        if self.this_run.job_dir is not None:
            return self.this_run.job_dir
        if self.output.job_dir:
            return self.home / self.output.job_dir
        if self.output_file is None:
            raise BadJob("No output was named.")
        return default_job_folder(self.output_file)

    @property
    def output_path(self) -> Path:
        """Where the table goes. Raises BadJob without an output."""
        if self.output_file is None:
            raise BadJob("No output was named.")
        return self.output_file

    @classmethod
    def load(
        cls,
        inputs: Sequence[str | Path],
        output: str | Path | None = None,
        *,
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        this_run: ThisRun | None = None,
    ) -> Self:
        """Read a job file and lay `settings` (dotted names, `{"endpoint.model": "…"}`) over it.

        Raises BadJob with every mistake at once, each with its place: `job.toml:4: prompt.templat: unknown key; …`.
        """
        source = Source.read(None if config is None else Path(config), settings or {})
        rest = {
            "inputs": tuple(str(name) for name in inputs),
            "output_file": None if output is None else Path(output),
            "home": source.path.parent if source.path else Path(),
            "this_run": this_run or ThisRun(),
        }
        try:
            return cls.model_validate({**source.values, **rest})
        except ValidationError as error:
            raise BadJob("\n".join(source.complaints(error.errors()))) from None


class Source:
    """Where the settings came from, so that each mistake is told with its place."""

    def __init__(self, path: Path | None, text: str, values: dict[str, Any], flags: Mapping[str, Any]) -> None:
        self.path, self.text, self.values, self.flags = path, text, values, flags

    @classmethod
    def read(cls, path: Path | None, flags: Mapping[str, Any]) -> Self:
        """Raises BadJob for a file that cannot be read or is not TOML, and for a schema file that is not JSON."""
        text = "" if path is None else _read_text(path, "job file")
        try:
            values = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # not only tomllib's own: a number or nesting without end
            raise BadJob(f"{path}: not TOML: {error}\nNothing was sent.") from None
        for name, value in flags.items():
            _lay_over(values, name, value)
        home = path.parent if path else Path()
        answer, prompt = values.get("answer"), values.get("prompt")
        if isinstance(answer, dict) and isinstance(answer.get("schema"), str):
            is_model = PYDANTIC_MODEL.fullmatch(answer["schema"])
            answer["schema"] = (_schema_of if is_model else _read_schema)(answer["schema"], home)
        if isinstance(prompt, dict) and isinstance(prompt.get("examples"), str):
            path_of_examples = home / prompt["examples"]
            prompt["examples"] = read_examples(path_of_examples, _read_text(path_of_examples, "file of examples"))
        return cls(path, text, values, flags)

    def complaints(self, errors: Sequence[ErrorDetails]) -> Iterator[str]:
        """A line for each mistake, and what to do."""
        seen = set()
        for error in errors:
            # deeper parts of a place are list indices and the members of unions; people know section and key
            place = tuple(str(part) for part in error["loc"][:2])
            line = f"{self._where(place)}{'.'.join(place)}{': ' if place else ''}{_said(error, place)}"
            if line not in seen:
                seen.add(line)
                yield line
        yield "Nothing was sent."

    def _where(self, place: tuple[str, ...]) -> str:
        name = ".".join(place)
        if name in self.flags or any(flag.startswith(name + ".") for flag in self.flags if name):
            return "command line: "
        return f"{self.path}:{line_of_key(self.text, place)}: " if self.path else ""


def _read_text(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*")], 1)
        hint = f" Did you mean {path.with_name(near[0])}?" if near else ""
        raise BadJob(f"{path}: there is no such {what}.{hint}\nNothing was sent.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadJob(f"{path}: this {what} cannot be read: {error}\nNothing was sent.") from None


def _schema_of(name: str, home: Path) -> dict[str, Any]:
    """The schema of a Pydantic model, `module:Class`, whose module lies beside the job file or is installed."""
    module, _, attribute = name.partition(":")
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(home.absolute()))
    try:
        found = getattr(importlib.import_module(module), attribute, None)
        schema = found.model_json_schema() if isinstance(found, type) and issubclass(found, BaseModel) else None
    except Exception as error:  # a module is the user's code: it may raise anything
        raise BadJob(
            f"answer.schema: {name} cannot be imported: {type(error).__name__}: {error}\n"
            f"{module}.py is looked for in {home.absolute()}, then among what is installed. Nothing was sent."
        ) from error
    finally:
        sys.path.remove(str(home.absolute()))
        sys.dont_write_bytecode = writes_bytecode
    if schema is None:
        raise BadJob(f"answer.schema: {module} has no Pydantic model {attribute!r}.\nNothing was sent.")
    return schema


def _read_schema(name: str, home: Path) -> dict[str, Any]:
    path = home / name
    try:
        schema = json.loads(_read_text(path, "schema file"))
    except json.JSONDecodeError as error:
        raise BadJob(f"{path}:{error.lineno}: not JSON: {error.msg}\nNothing was sent.") from None
    except (ValueError, RecursionError) as error:
        raise BadJob(f"{path}: not JSON: {error}\nNothing was sent.") from None
    if not isinstance(schema, dict):
        raise BadJob(f"{path}: not a JSON Schema: it is to be an object\nNothing was sent.")
    return schema


def _lay_over(values: dict[str, Any], name: str, value: Any) -> None:  # noqa: ANN401 - a setting has any type
    *tables, last = name.split(".")
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise BadJob(f"{name}: {table} is not a table of settings\nNothing was sent.")
        values = inner
    values[last] = value


def _said(error: ErrorDetails, place: tuple[str, ...]) -> str:
    if error["type"] == "extra_forbidden":
        section = JobFile.model_fields[place[0]].annotation if len(place) > 1 else JobFile
        return _near(place[-1], _keys(section), "unknown key")
    if error["type"] == "missing":
        return "missing; name it in the job file (-c), or by --base-url"
    return error["msg"].removeprefix("Value error, ")


def _keys(section: Any) -> list[str]:  # noqa: ANN401 - a field's annotation
    return [field.alias or name for name, field in section.model_fields.items()]


def _near(word: str, words: Sequence[str], complaint: str) -> str:
    near = difflib.get_close_matches(word, words, 1)
    return f"{complaint}; did you mean {near[0]}?" if near else f"{complaint}; there are {', '.join(words)}"


KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
HEADER_LINE = re.compile(rf"\s*\[\[?\s*({KEY}(?:\s*\.\s*{KEY})*)\s*\]")
KEY_LINE = re.compile(rf"\s*({KEY}(?:\s*\.\s*{KEY})*)\s*=(.*)")


def line_of_key(text: str, place: Sequence[str]) -> int:
    """The line (from 1) of a TOML text on which a key stands, or else the table nearest to it; 1 if none does.

    tomllib keeps no places. Lines inside a multi-line string are not mistaken for keys.
    """
    table: tuple[str, ...] = ()
    deepest, found, closing = 0, 1, ""
    for number, line in enumerate(text.splitlines(), 1):
        if closing:
            closing = "" if closing in line else closing
            continue
        header, pair = HEADER_LINE.match(line), KEY_LINE.match(line)
        if header:
            here = table = _parts(header[1])
        elif pair:
            here = table + _parts(pair[1])
            closing = next((quote for quote in ('"""', "'''") if pair[2].count(quote) % 2), "")
        else:
            continue
        if len(here) > deepest and here == tuple(place[: len(here)]):
            deepest, found = len(here), number
    return found


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(KEY, dotted))


def parse_setting(text: str) -> tuple[str, Any]:
    """`limits.max_cost=5` → `("limits.max_cost", 5)`: the value is TOML, or else the text itself. Raises BadJob."""
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or "." not in name:
        raise BadJob(f"--set {text}: write it as section.key=value, such as --set limits.max_cost=5")
    if name.startswith(("endpoint.headers", "endpoint.api_key_default")):
        raise BadJob(f"--set {name}: others see a command line in the process list; use the job file")
    try:
        return name, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):  # as in `Source.read`
        return name, value.strip()


class Setting(NamedTuple):
    """One key of the job file, for people."""

    name: str
    kind: str
    default: str
    help: str


def settings() -> Iterator[Setting]:
    """Every key of the job file, in order: what the README's table and the help texts are made from."""
    schema = JobFile.model_json_schema()
    for section, spec in schema["properties"].items():
        if section == "parameters":
            yield Setting("parameters.*", "any", "", spec["description"])
            continue
        name = spec.get("$ref", "").rpartition("/")[2]
        for key, field in schema["$defs"][name]["properties"].items():
            required = key in schema["$defs"][name].get("required", ())
            default = field.get("default")
            shown = "required" if required else "" if default is None else json.dumps(default)
            yield Setting(f"{section}.{key}", _kind(field), shown, field["description"])


def _kind(field: dict[str, Any]) -> str:
    kinds = [option.get("type") or json.dumps(option.get("const")) for option in field.get("anyOf", [field])]
    words = {"object": "table", "array": "list", "string": "text", "number": "number", "integer": "whole number"}
    return " or ".join(words.get(kind, kind) for kind in kinds if kind != "null").replace("boolean", "true or false")


def setting_help(name: str) -> str:
    """The help of one setting by its dotted name."""
    section, _, key = name.partition(".")
    field = JobFile.model_fields[section].annotation.model_fields[key]  # type: ignore[union-attr]
    return str(field.description)
