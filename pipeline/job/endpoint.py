"""The section `[endpoint]`: where requests are sent, which model is asked, and with which secrets."""

from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from ..secrecy import is_secret, secrets_of_header
from .key_command import KeyCommand, command_words
from .values import Section, VariableName, variable_not_set, variable_value

LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
    api_key_command: list[str] | str = Field(
        default="",
        description='a command that prints the API key, as `["gcloud", "auth", "print-access-token"]`; run again when '
        "the key has expired. No shell reads it",
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
        description="the most seconds that one attempt may take in all; with `stream`, the longest silence; with "
        '`run.how = "flex"` the default is 900',
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

    _key_command: KeyCommand | None = None

    def model_post_init(self, _: Any, /) -> None:  # noqa: ANN401 - the signature is pydantic's
        """Make the command of the key, which all copies of the job share: it is run once for all."""
        words = command_words(self.api_key_command)
        self._key_command = KeyCommand(words) if words else None

    @field_validator("api_key_command")
    @classmethod
    def _check_command(cls, command: list[str] | str) -> list[str] | str:
        command_words(command)
        return command

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
        keys = [name for name in ("api_key_env", "api_key_default") if getattr(self, name)]
        if self.api_key_command and keys:
            raise ValueError(f"give endpoint.api_key_command or endpoint.{keys[0]}, not both")
        has_key = keys or self.api_key_command or self.secret_headers or self.headers_env
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
        keys = [*map(variable_value, variables), self.api_key_default, *self.keys_of_command]
        return [*self.secret_headers, *filter(None, keys)]

    @property
    def key_command(self) -> KeyCommand | None:
        """The command that prints the key; None if the job names none."""
        return self._key_command

    @property
    def keys_of_command(self) -> list[str]:
        """The keys that the command has given so far, in this process."""
        return [] if self._key_command is None else self._key_command.keys

    @property
    def key_origin(self) -> str:
        """Where the key is from, without being one: the name of its variable, or the command as it may be shown."""
        return self.api_key_env if self._key_command is None else self._key_command.shown

    @property
    def filed_under(self) -> str:
        """The name that answers are stored under; it is part of their keys."""
        return self.name or self.base_url

    @property
    def host(self) -> str:
        """Where the data goes, for a person: `api.openai.com`, or `this machine`."""
        return "this machine" if self.is_local else urlsplit(self.base_url).netloc

    def key(self, *, is_new_run: bool = False) -> SecretStr | None:
        """The API key, masked; None if the job names none. Raises BadJob if its environment variable is not set.

        With `api_key_command` it is the latest key; the command is run for the first, and if `is_new_run`. Raises
        BadJob if it gives none.
        """
        if self._key_command is not None:
            return self._key_command.key(is_new_run=is_new_run)
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
