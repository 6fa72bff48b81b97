"""The sections of a job file: every setting is declared once, here, with its type, default, check and help.

The command line (`--set`, flags and their help), the table of keys, and the JSON schema for editors read it from here.
A help text says what the setting is, in lower case and without a full stop; units and limits belong into it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from ..records import BadJob
from ..secrecy import is_secret, secrets_of_header
from .values import (
    Duration,
    Price,
    VariableName,
    variable_not_set,
    variable_value,
    without_duplicates,
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AUTO_WINDOW = 8
"""Requests in flight at the start of a run with `concurrency = "auto"`."""


class Section(BaseModel):
    """One table of the job file. Unknown keys and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Endpoint(Section):
    """The endpoint and the model that are asked."""

    base_url: str = Field(
        description="the API's address, up to and with `/v1`; or a model on this machine, as `local:smollm2-135m` or "
        "`local:path/to.gguf`"
    )
    model: str = Field(default="", description="the model's name at the endpoint; not needed with `local:`")
    api_key_env: VariableName = Field(
        default="", description="the name of the environment variable that holds the API key; never the key itself"
    )
    api_key_default: str = Field(
        default="",
        repr=False,
        description="the API key to use where that variable is not set; only for a key that its owner has made public",
    )
    name: str = Field(
        default="",
        description="the name that answers are stored under, so that a server can move to another address; "
        "default: the base URL",
    )
    revision: str = Field(
        default="", description="any text; change it when the weights behind the model's name have changed"
    )
    headers: dict[str, str] = Field(default={}, repr=False, description="more HTTP headers, sent with every request")
    headers_env: dict[str, VariableName] = Field(
        default={},
        description="headers whose values are secrets: from each header to the name of the environment variable that "
        'holds its value, as `{ api-key = "AZURE_API_KEY" }`',
    )
    query: dict[str, str] = Field(
        default={}, description="added to the address of every request, as Azure's `api-version`; never a key"
    )
    stream: bool = Field(
        default=False,
        description="have answers sent in pieces: for models that only stream, and gateways that cut off long silence",
    )
    timeout_seconds: float = Field(
        default=600,
        gt=0,
        description="the most seconds that one attempt may take in all; with `stream`, the longest silence",
    )
    plain_http: bool = Field(default=False, description="allow the key to be sent over http:// to another machine")

    @field_validator("base_url")
    @classmethod
    def _check_address(cls, url: str) -> str:
        if url.startswith("local:"):
            return url
        parts = urlsplit(url)
        # checked first: the message below quotes the address, which may hold a key
        if "@" in url.rpartition("://")[2].partition("/")[0] or parts.query or parts.fragment:
            raise ValueError(
                "a key or a query does not belong in the address; name the key's variable in endpoint.api_key_env,\n"
                "and give the query in endpoint.query"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a web address; it must begin with https://, http:// or local:")
        return url.rstrip("/").removesuffix("/chat/completions")

    @field_validator("query")
    @classmethod
    def _check_query(cls, query: dict[str, str]) -> dict[str, str]:
        for name, value in query.items():
            if secrets_of_header(name, value):
                raise ValueError(f"{name!r} looks like a key; give it in a header, with endpoint.headers_env")
        return query

    @model_validator(mode="after")
    def _check_model_and_encryption(self) -> Self:
        if not self.model and not self.is_local:
            raise ValueError("endpoint.model is missing; set it in the job file (-c) or with -m")
        parts = urlsplit(self.base_url)
        has_key = self.api_key_env or self.api_key_default or self.secret_headers or self.headers_env
        if parts.scheme == "http" and has_key and not self.plain_http and parts.hostname not in LOOPBACK:
            raise ValueError(
                "the key would be sent unencrypted over http://; use https://, or set endpoint.plain_http = true"
            )
        return self

    @property
    def is_local(self) -> bool:
        """Whether the model runs on this machine, started by this program."""
        return self.base_url.startswith("local:")

    @property
    def secret_headers(self) -> list[str]:
        """The secrets in the headers: what their names say are secrets, and in the others what looks like one."""
        return [secret for name, value in self.headers.items() for secret in secrets_of_header(name, value)]

    @property
    def address_secrets(self) -> list[str]:
        """The parts of the address's path that look like a secret, as some gateways take the key there."""
        return [part for part in urlsplit(self.base_url).path.split("/") if is_secret(part)]

    @property
    def secrets(self) -> list[str]:
        """All secrets of the endpoint: those in the headers, and the key as far as it is set. Never raises."""
        variables = [*([self.api_key_env] if self.api_key_env else []), *self.headers_env.values()]
        keys = [*map(variable_value, variables), self.api_key_default]
        return [*self.secret_headers, *filter(None, keys)]

    @property
    def filed_under(self) -> str:
        """The name that answers are stored under; it is part of their keys."""
        return self.name or self.base_url

    @property
    def host(self) -> str:
        """Where the data goes, for a person: `api.openai.com`, or `this machine`."""
        return "this machine" if self.is_local else urlsplit(self.base_url).netloc

    def key(self) -> SecretStr | None:
        """The API key, masked; None if the job names none. Raises BadJob if its environment variable is not set."""
        if not self.api_key_env and not self.api_key_default:
            return None
        key = (variable_value(self.api_key_env) if self.api_key_env else "") or self.api_key_default
        if not key:
            raise variable_not_set(self.api_key_env, "the key", "endpoint.api_key_env")
        return SecretStr(key)

    def all_headers(self) -> dict[str, str]:
        """The job's own headers with their values. Raises BadJob if the environment variable of one is not set."""
        found = {header: variable_value(name) for header, name in self.headers_env.items()}
        for header, value in found.items():
            if not value:
                raise variable_not_set(self.headers_env[header], f"the header {header}", "endpoint.headers_env")
        return {**self.headers, **found}


class Prompt(Section):
    """How a row becomes a prompt."""

    template: str | None = Field(
        default=None,
        description="a Jinja template over the row's columns, such as `{{ review }}`; "
        "`{{ row['any name'] }}` for odd column names",
    )
    column: str = Field(
        default="prompt",
        description="without a template: the column that holds the prompts, or whole chats (`messages`)",
    )
    system: str | None = Field(default=None, description="a system message before each prompt; a Jinja template too")
    examples: str | list[dict[str, Any]] = Field(
        default=[],
        description="rows with their answers, shown to the model before each prompt: a CSV, TSV or NDJSON file, or "
        "tables [[prompt.examples]]; the answers are in the typed columns, or without [answer] in `answer`",
    )
    images: list[str] = Field(
        default=[],
        description="columns of images to send along: paths relative to the input's folder, web addresses, or bytes",
    )

    @property
    def example_rows(self) -> list[dict[str, Any]]:
        """The examples as rows. A file of them was read while the job file was loaded."""
        return self.examples if isinstance(self.examples, list) else []

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if self.template is not None and "column" in self.model_fields_set:
            raise ValueError("give prompt.template or prompt.column, not both")
        return self


class AnswerSection(Section):
    """The contract that an answer must fit, and how many answers are asked for."""

    labels: list[str] | None = Field(
        default=None, description="the answer is one of these words; it goes into the column `label`"
    )
    multi: bool = Field(default=False, description="the answer is a list of any number of the labels")
    json_schema: str | dict[str, Any] | None = Field(
        default=None,
        alias="schema",
        description="the answer fits this JSON Schema: a file, the table [answer.schema], or a Pydantic model as "
        "`module:Class`; each property becomes a column",
    )
    repairs: int = Field(
        default=2, ge=0, le=10, description="the most times that an answer which does not fit is asked for again"
    )
    grow_on_truncation: int | None = Field(
        default=None, gt=0, description="ask once more for an answer that was cut off, with this larger `max_tokens`"
    )
    keep_old: bool = Field(
        default=False, description="after a change of the labels or the schema: keep the stored answers that still fit"
    )
    name: str = Field(default="label", min_length=1, description="the name of the column for the labels")
    samples: int = Field(
        default=1, ge=1, le=100, description="how often each row is asked; shown is the answer that most samples gave"
    )
    models: list[str] | None = Field(
        default=None,
        min_length=1,
        description="ask each of these models instead of `endpoint.model`, each at its own pace; "
        "shown is the answer that most of them gave",
    )
    logprobs: bool = Field(
        default=False,
        description="ask for the tokens' probabilities: adds the column `confidence`, where the endpoint reports them",
    )

    @model_validator(mode="after")
    def _check_one_contract(self) -> Self:
        if self.labels is not None and self.json_schema is not None:
            raise ValueError("give answer.labels or answer.schema, not both")
        if self.multi and self.labels is None:
            raise ValueError("answer.multi needs answer.labels; list them, or remove answer.multi")
        return self

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: list[str] | None) -> list[str] | None:
        if labels is not None and not labels:
            raise ValueError("no label is given; list at least one")
        if any(not label.strip() for label in labels or ()):
            raise ValueError("a label is blank; for rows that fit no other label, add one such as none")
        return without_duplicates(labels)

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: list[str] | None) -> list[str] | None:
        return without_duplicates(models)

    @property
    def contract(self) -> dict[str, Any] | None:
        """The JSON Schema that an answer must fit; None for free text.

        It is part of every key, so the name of the label's column is not in it.
        """
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
        """The property of the contract that holds the label, or the list of labels."""
        return "labels" if self.multi else "label"


class Columns(Section):
    """Columns that hold a row's own settings; where a cell is null, the job's setting counts."""

    model: str | None = Field(default=None, description="the column that holds the row's model")
    max_tokens: str | None = Field(default=None, description="the column that holds the row's `max_tokens`")


class Limits(Section):
    """How fast the job may ask, how much it may cost, and when it stops."""

    concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = Field(
        default="auto", description="the most requests in flight at once; `auto` finds a good number, up to 1,024"
    )
    requests_per_minute: float | None = Field(default=None, gt=0, description="the most requests per minute")
    tokens_per_minute: float | None = Field(
        default=None, gt=0, description="the most tokens per minute, prompts and answers together"
    )
    max_cost: float | None = Field(
        default=None, gt=0, description="the most US dollars to spend, over the life of the job folder"
    )
    reserve_tokens: int | None = Field(
        default=None,
        gt=0,
        description="with `max_cost`, where no `max_tokens` is set: the output tokens to reserve for each request",
    )
    max_runtime: Duration | None = Field(
        default=None,
        description="the longest that a run may last, such as `7h30m`; then it waits for what is in flight, and stops",
    )
    max_failures: float | None = Field(
        default=None,
        ge=0,
        description="the most rows that may end without an answer before the run stops; "
        "a number below 1 is a share of the run's rows",
    )
    give_up_after: Duration = Field(default="30m", description="stop when no answer has come for this long")

    @property
    def width(self) -> int:
        """How many requests may be in flight at the start of a run."""
        return AUTO_WINDOW if self.concurrency == "auto" else self.concurrency

    def tuned(self, changes: Mapping[str, Any]) -> Self:
        """A copy with some values changed, by name. Raises BadJob for a value that is not allowed."""
        try:
            return type(self).model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            # one line for each key: of a union's several errors, the last says most
            messages = {str(each["loc"][0]): each["msg"] for each in error.errors()}
            lines = [f"limits.{name}: {message}" for name, message in messages.items()]
            raise BadJob("\n".join([*lines, "Nothing was changed."])) from None


class ModelPrices(Section):
    """The prices of one model, in US dollars per million tokens."""

    input: Price | None = Field(default=None, description="US dollars per million prompt tokens")
    cached_input: Price | None = Field(
        default=None,
        description="US dollars per million prompt tokens that the endpoint read from its cache; default: `input`",
    )
    output: Price | None = Field(
        default=None, description="US dollars per million completion tokens, hidden reasoning included"
    )

    @model_validator(mode="after")
    def _check_both_or_none(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("give both prices.input and prices.output, or neither")
        if self.cached_input is not None and self.input is None:
            raise ValueError("prices.cached_input is given, but not prices.input and prices.output")
        return self


class Prices(ModelPrices):
    """Prices that count instead of those of the price list, in US dollars per million tokens."""

    models: dict[str, ModelPrices] = Field(
        default={}, description='the prices of single models, with the same keys: `[prices.models."gpt-x"]`'
    )

    def of(self, model: str) -> ModelPrices:
        """The prices that the job file gives for a model; they are None where it gives none."""
        return self.models.get(model, self)


class OutputSection(Section):
    """What the output holds, and where the job folder is."""

    prefix: str = Field(default="", description="a text before the name of every added column")
    columns: list[str] | None = Field(default=None, description="the added columns to write; default: all")
    job_dir: str = Field(
        default="", description="the job folder, where answers are stored; default: the output's name with `.job`"
    )
    shared: bool = Field(
        default=False,
        description="share the job folder with its group: colleagues can resume, export, show and steer the job, and "
        "you go on with their lines as with your own as far as these do nothing new",
    )


class RunSection(Section):
    """How requests are sent."""

    how: Literal["live", "batch", "ray"] = Field(
        default="live",
        description="`live`: by this process; `batch`: by the provider's Batch API, within a day; `ray`: by Ray actors",
    )
    batch_requests: int = Field(default=50_000, ge=1, description="`batch`: the most requests in one batch")
    poll_seconds: float = Field(
        default=60, gt=0, description="`batch`: seconds between two checks whether a batch is done"
    )
    workers: int = Field(default=2, ge=1, description="`ray`: the number of actors; the limits are divided among them")
    address: str = Field(
        default="",
        description="`ray`: the address of the cluster that this machine belongs to, `auto` or `head:6379`; "
        "default: a cluster of this machine's own cores",
    )
