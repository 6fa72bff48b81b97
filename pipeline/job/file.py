"""The whole job file, and what its sections decide together."""

import json
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from ..secrecy import HIDDEN, hidden_in_setting
from ..text import did_you_mean
from .added_columns import ADDED_COLUMNS
from .endpoint import Endpoint
from .prices import Prices
from .sections import (
    AnswerSection,
    Columns,
    Limits,
    OutputSection,
    Prompt,
    RunSection,
)
from .values import Section

OWN_PARAMETERS = ("model", "messages", "stream", "n")
"""Parts of a request's body that the program sets itself."""
UNSEEN_PARAMETERS = frozenset(
    {
        "cache_salt",  # vLLM
        "metadata",
        "priority",  # vLLM
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "provider",  # OpenRouter's routing
        "request_id",  # vLLM
        "safety_identifier",
        "service_tier",
        "session_id",  # OpenRouter
        "store",
        "stream_options",
        "trace",  # OpenRouter
        "usage",  # OpenRouter's accounting
        "user",
    }
)
"""The parameters that the model does not see: routing, caches, tiers, accounting. They are no part of a key, so that
after a change in one nothing is asked again."""
FLEX_TIMEOUT_SECONDS = 900.0
"""How long an answer at half price may take: OpenAI advises 15 minutes."""
OUTPUT_CAPS = ("max_completion_tokens", "max_tokens")
"""The parameters that bound an answer's length."""


class JobFile(Section):
    """The job file: every key that it may hold."""

    endpoint: Endpoint
    prompt: Prompt = Prompt()
    parameters: dict[str, Any] = Field(
        default={},
        description="sent in the body of every request as they are, such as `temperature`; "
        "not model, messages, stream or n",
    )
    answer: AnswerSection = AnswerSection()
    columns: Columns = Columns()
    limits: Limits = Limits()
    prices: Prices = Prices()
    output: OutputSection = OutputSection()
    run: RunSection = RunSection()

    @model_validator(mode="before")
    @classmethod
    def _default_to_longer_timeout(cls, values: Any) -> Any:  # noqa: ANN401 - not checked yet
        """Set `endpoint.timeout_seconds` to FLEX_TIMEOUT_SECONDS in a job at half price, where it is not given."""
        endpoint, run = (values.get(name) if isinstance(values, dict) else None for name in ("endpoint", "run"))
        if not isinstance(endpoint, dict) or not isinstance(run, dict) or run.get("how") != "flex":
            return values
        return {**values, "endpoint": {"timeout_seconds": FLEX_TIMEOUT_SECONDS, **endpoint}}

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(parameters) & set(OWN_PARAMETERS))
        if taken:
            raise ValueError(f"{', '.join(taken)}: set by the program itself; remove it from [parameters]")
        try:
            json.dumps(parameters, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"cannot be written as JSON: {error}") from None
        return parameters

    @model_validator(mode="before")
    @classmethod
    def _default_to_first_model(cls, values: Any) -> Any:  # noqa: ANN401 - not checked yet
        """Set `endpoint.model` to the first of `answer.models` where it is not given."""
        endpoint, answer = (values.get(name) if isinstance(values, dict) else None for name in ("endpoint", "answer"))
        models = answer.get("models") if isinstance(answer, dict) else None
        if not isinstance(endpoint, dict) or not isinstance(models, list) or not models:
            return values
        return {**values, "endpoint": {"model": models[0], **endpoint}}

    @model_validator(mode="after")
    def _check_models(self) -> Self:
        if self.answer.models is not None and self.endpoint.is_local:
            raise ValueError("answer.models: one model runs on this machine at a time; name one, in endpoint.base_url")
        if self.columns.model is not None and self.endpoint.is_local:
            raise ValueError("columns.model: one model runs on this machine at a time, and endpoint.base_url names it")
        if self.answer.models is not None and self.columns.model is not None:
            raise ValueError("give answer.models or columns.model, not both")
        if self.endpoint.is_local and self.run.how in ("batch", "flex"):
            what = "Batch API" if self.run.how == "batch" else "half-price tier"
            raise ValueError(f'run.how: a model on this machine has no {what}; use run.how = "live"')
        if self.run.how == "flex" and "service_tier" in self.parameters:
            raise ValueError('give run.how = "flex" or parameters.service_tier, not both')
        return self

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        taken = [name for name in self.typed_columns if name in self._columns_beside_typed]
        if taken:
            where = "answer.name" if self.answer.labels is not None else "answer.schema"
            raise ValueError(f"{where}: {', '.join(taken)}: a column of this name is added anyway; choose another name")
        known = (*self.added_columns, *self.reported_columns)
        wrong = [name for name in self.output.columns or () if name not in known]
        if wrong:
            near = did_you_mean(wrong[0], known)
            raise ValueError(f"output.columns: the output has no added column {wrong[0]!r}{near}")
        if self.answer.contract is not None and "response_format" in self.parameters:
            raise ValueError("give [answer] or parameters.response_format, not both")
        return self

    @model_validator(mode="after")
    def _check_grow_on_truncation(self) -> Self:
        larger, smaller = self.answer.grow_on_truncation, max(self.output_caps.values(), default=0)
        if larger is not None and larger <= smaller:
            raise ValueError(f"answer.grow_on_truncation of {larger:,} must be more than the {smaller:,} of max_tokens")
        if larger is not None and self.columns.max_tokens is not None:
            # planning follows chains by keys alone, and does not know the rows' own caps
            raise ValueError("give answer.grow_on_truncation or columns.max_tokens, not both")
        return self

    @property
    def output_caps(self) -> dict[str, int]:
        """The parameters that bound an answer's length, as far as they are given; values in tokens."""
        given = {name: self.parameters.get(name) for name in OUTPUT_CAPS}
        # some servers take -1 for "no limit", and True is an int in Python
        return {name: cap for name, cap in given.items() if type(cap) is int and cap > 0}

    @property
    def seen_parameters(self) -> dict[str, Any]:
        """The parameters that the model sees."""
        return {name: value for name, value in self.parameters.items() if name not in UNSEEN_PARAMETERS}

    def capped(self, max_tokens: int) -> dict[str, int]:
        """Parameters that bound an answer's length to `max_tokens`, by the name that the job uses for it."""
        return dict.fromkeys(self.output_caps or ("max_tokens",), max_tokens)

    @property
    def typed_columns(self) -> dict[str, dict[str, Any]]:
        """The typed columns of the answer, without prefix: from name to the JSON Schema of the values."""
        contract = self.answer.contract
        if contract is None:
            return {}
        if self.answer.labels is not None:
            return {self.answer.name: contract["properties"][self.answer.label_property]}
        properties = contract.get("properties")
        return dict(properties) if isinstance(properties, dict) else {}

    @property
    def added_columns(self) -> tuple[str, ...]:
        """The names of all columns that the output adds, in order, without prefix; after them `reported_columns`."""
        answer, *others = self._columns_beside_typed
        return (answer, *self.typed_columns, *others)

    @property
    def reported_columns(self) -> tuple[str, ...]:
        """The names of the columns that the output adds where an answer fills them, in order, without prefix."""
        return tuple(
            column.name
            for column in ADDED_COLUMNS
            if column.when == "reported" and column.name not in self.typed_columns
        )

    @property
    def _columns_beside_typed(self) -> tuple[str, ...]:
        has = {
            "always": True,
            "samples": self.samples_per_row > 1,
            "logprobs": self.answer.logprobs,
            "contract": self.answer.contract is not None,
            "reported": False,
        }
        return tuple(column.name for column in ADDED_COLUMNS if has[column.when])

    @property
    def models(self) -> tuple[str, ...]:
        """The models that each row is asked of."""
        return tuple(self.answer.models or (self.endpoint.model,))

    @property
    def samples_per_row(self) -> int:
        """How many samples a row has: `answer.samples` of each model."""
        return self.answer.samples * len(self.models)

    def as_json(self) -> dict[str, Any]:
        """All settings as JSON values, from which the same job can be made."""
        settings = self.model_dump(mode="json", by_alias=True, include=set(JobFile.model_fields))
        if "column" not in self.prompt.model_fields_set:
            settings["prompt"].pop("column")
        return settings

    def without_secrets(self) -> dict[str, Any]:
        """All settings as JSON values, for the history and a file's metadata; without keys and values of headers.

        In prompts, parameters and addresses, what looks like a secret is replaced by `***`.
        """
        settings = self.as_json()
        settings["endpoint"]["headers"] = dict.fromkeys(self.endpoint.headers, HIDDEN)
        settings["endpoint"].pop("api_key_default")
        known = self.endpoint.secrets
        return {
            section: {key: hidden_in_setting(f"{section}.{key}", value, known) for key, value in values.items()}
            for section, values in settings.items()
        }

    def seen_by_model(self) -> dict[str, Any]:
        """The settings that decide what the model sees, by dotted name: after a change in one, every row is asked."""
        return {
            "endpoint.name": self.endpoint.filed_under,
            "endpoint.model": self.endpoint.model if self.answer.models is None else None,
            "endpoint.revision": self.endpoint.revision,
            "prompt.template": self.prompt.template,
            "prompt.column": self.prompt.column if self.prompt.template is None else None,
            "prompt.system": self.prompt.system,
            "parameters": self.seen_parameters,
            "answer": self.answer.contract,
            "answer.models": self.answer.models,
            "answer.logprobs": self.answer.logprobs or None,
            "prompt.examples": self.prompt.examples or None,
            "prompt.images": self.prompt.images or None,
            "columns.model": self.columns.model,
            "columns.max_tokens": self.columns.max_tokens,
        }
