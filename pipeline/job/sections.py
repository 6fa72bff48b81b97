"""The sections of a job file: every setting is declared once, with its type, default, check and help.

Those of the endpoint and the prices have files of their own.

The command line (`--set`, flags and their help), the table of keys, and the JSON schema for editors read it from here.
A help text says what the setting is, in lower case and without a full stop; units and limits belong into it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ..records import BadJob
from .values import Duration, Patience, Section, without_duplicates

AUTO_WINDOW = 8
"""Requests in flight at the start of a run with `concurrency = "auto"`."""


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

    how: Literal["live", "flex", "batch", "ray"] = Field(
        default="live",
        description="`live`: by this process; `flex`: likewise, at the provider's half-price service tier; `batch`: by "
        "the provider's Batch API, within a day; `ray`: by Ray actors",
    )
    flex_patience: Patience = Field(
        default="10m",
        description="`flex`: after this long without capacity at half price, ask at the standard price; `never` waits",
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
