"""Models that their providers end: which, when, and what the provider names in their place."""

import re
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

LISTED_ON = date(2026, 11, 29)
"""The day on which the lists below were put together from the providers' announcements."""

WARNED_DAYS = 60
"""A model is spoken of from this many days before its end."""

GATEWAYS = ("openrouter.ai", "ai-gateway.vercel.sh")
"""Hosts that pass requests on to the providers, whose models they name `openai/gpt-x`."""

SNAPSHOT = re.compile(r"-(?:\d{4}-\d\d-\d\d|\d{8}|\d{3,4})$")
"""The date or number of a version at the end of a model's name."""


class Retirement(NamedTuple):
    """The end of one model at its provider."""

    provider: str
    """For a person: `OpenAI`."""
    day: date
    """The first day on which the provider does not serve it."""
    successor: str
    """The model that the provider names in its place; empty if none is known."""
    gateway: str
    """The host that passes requests on to the provider; empty if the provider itself is asked."""


class Provider(NamedTuple):
    """A provider's models that have ended or will end, by the names that its own host knows."""

    name: str
    host: str
    vendor: str
    """How gateways name it before the `/`; empty if they have its models, whose weights are open, from others too."""
    ends: Mapping[str, tuple[str, str]]
    """From a model's name, with `.` written as `-`, to the day of its end and its successor."""


def _ends(lines: str) -> Mapping[str, tuple[str, str]]:
    """Read lines of a day, a successor or `?`, and the names of the models that end on that day."""
    found: dict[str, tuple[str, str]] = {}
    for line in lines.strip().splitlines():
        day, successor, *names = line.split()
        date.fromisoformat(day)
        found |= dict.fromkeys((_dashed(name) for name in names), (day, "" if successor == "?" else successor))
    return MappingProxyType(found)


def _dashed(name: str) -> str:
    return name.lower().replace(".", "-")  # gateways write claude-sonnet-4.5 for claude-sonnet-4-5


PROVIDERS = (
    Provider(
        "OpenAI",
        "api.openai.com",
        "openai",
        _ends(
            """
            2026-07-23 ? gpt-5-chat-latest gpt-5.1-chat-latest gpt-4o-search-preview gpt-4o-mini-search-preview
            2026-07-23 ? gpt-5-codex gpt-5.1-codex gpt-5.1-codex-max gpt-5.1-codex-mini gpt-5.2-codex
            2026-08-10 gpt-5.5 gpt-5.2-chat-latest gpt-5.3-chat-latest
            2026-10-23 gpt-5.6-terra gpt-3.5-turbo gpt-3.5-turbo-16k o4-mini
            2026-10-23 gpt-5.6-sol gpt-4 gpt-4-1106-preview gpt-4-turbo gpt-4o-2024-05-13 o1 o1-pro o3-mini
            2026-10-23 gpt-5.6-luna gpt-4.1-nano
            2026-12-11 gpt-6.1-sol gpt-5
            2026-12-11 gpt-6.1-terra gpt-5-mini
            2026-12-11 gpt-6-luna gpt-5-nano
            2026-12-11 gpt-5.6-sol gpt-5-pro o3 o3-pro
            2027-01-14 gpt-6-luna gpt-4o gpt-4o-mini gpt-4.1 gpt-4.1-mini
            2027-01-20 ? gpt-audio gpt-audio-mini gpt-4o-audio-preview gpt-4o-mini-audio-preview
            2027-04-01 ? gpt-5.1 gpt-5.3-codex gpt-5.4-nano
            """
        ),
    ),
    Provider(
        "Google",
        "generativelanguage.googleapis.com",
        "google",
        _ends(
            """
            2026-03-09 gemini-3.1-pro-preview gemini-3-pro-preview
            2026-05-25 gemini-3.1-flash-lite gemini-3.1-flash-lite-preview
            2026-06-01 ? gemini-2.0-flash gemini-2.0-flash-lite
            2026-12-01 gemini-3.5-flash-lite gemini-2.5-flash
            2026-12-01 gemini-3.8-flash gemini-2.5-pro
            2027-05-07 ? gemini-3.1-flash-lite
            """
        ),
    ),
    Provider(
        "Anthropic",
        "api.anthropic.com",
        "anthropic",
        _ends(
            """
            2026-01-05 ? claude-3-opus
            2026-06-15 claude-sonnet-4-6 claude-sonnet-4 claude-sonnet-4-0
            2026-06-15 claude-opus-4-8 claude-opus-4 claude-opus-4-0
            2026-08-05 ? claude-opus-4-1
            2026-11-30 claude-sonnet-5-5 claude-sonnet-4-5
            2027-01-22 ? claude-opus-4-5
            """
        ),
    ),
    Provider(
        "xAI",
        "api.x.ai",
        "x-ai",
        _ends(
            """
            2026-05-15 grok-4.3 grok-3 grok-4-0709 grok-code-fast-1 grok-4-fast-reasoning grok-4-1-fast-reasoning
            2026-05-15 ? grok-4-fast-non-reasoning grok-4-1-fast-non-reasoning
            """
        ),
    ),
    Provider(
        "DeepSeek",
        "api.deepseek.com",
        "",
        _ends("2026-07-24 deepseek-flash deepseek-chat deepseek-reasoner"),
    ),
    Provider(
        "Groq",
        "api.groq.com",
        "",
        _ends(
            """
            2026-03-09 openai/gpt-oss-120b meta-llama/llama-4-maverick-17b-128e-instruct
            2026-07-17 openai/gpt-oss-120b qwen/qwen3-32b meta-llama/llama-4-scout-17b-16e-instruct
            2026-08-16 openai/gpt-oss-120b llama-3.3-70b-versatile
            2026-08-16 openai/gpt-oss-20b llama-3.1-8b-instant
            """
        ),
    ),
    Provider(
        "Cerebras",
        "api.cerebras.ai",
        "",
        _ends(
            """
            2026-02-16 gpt-oss-120b llama-3.3-70b qwen-3-32b
            2026-05-27 ? llama3.1-8b qwen-3-235b-a22b-instruct-2507
            """
        ),
    ),
    Provider("Mistral", "api.mistral.ai", "", _ends("2027-04-30 ? mistral-large-2512 mistral-medium-3-5")),
)
"""Who serves an open model under the same name elsewhere decides for himself: only these hosts are looked at."""


def is_listed(base_url: str) -> bool:
    """Whether the end of any model at this address is known."""
    host = urlsplit(base_url).hostname or ""
    return any(_is_host(host, known) for known in (*GATEWAYS, *(provider.host for provider in PROVIDERS)))


def find_retirement(base_url: str, model: str) -> Retirement | None:
    """The known end of a model at an address; None if none is known, or if the address is no provider's own."""
    host = urlsplit(base_url).hostname or ""
    gateway = next((known for known in GATEWAYS if _is_host(host, known)), "")
    vendor, _, short = model.partition("/")
    for provider in PROVIDERS:
        if gateway:
            name = short.partition(":")[0] if provider.vendor and vendor == provider.vendor else ""
        else:
            name = model.removeprefix("models/").removeprefix("google/") if _is_host(host, provider.host) else ""
        if name and (end := _end_of(provider, name)) is not None:
            return Retirement(provider.name, date.fromisoformat(end[0]), end[1], gateway)
    return None


def retirement_note(base_url: str, model: str, setting: str, today: date) -> str | None:
    """One sentence or two on a model that has ended or ends within WARNED_DAYS; None if there is nothing to say.

    `setting`: the key of the job file that names the model.
    """
    found = find_retirement(base_url, model)
    if found is None or (days := (found.day - today).days) > WARNED_DAYS:
        return None
    ends = "retired" if days <= 0 else "retires"
    left = "" if days <= 0 else ", tomorrow" if days == 1 else f", in {days} days"
    note = f"{found.provider} {ends} {model} ({setting}) on {found.day}{left}, by the list of {LISTED_ON}."
    if found.gateway:
        note += f" {found.gateway} may have it from others for longer."
    if found.successor:
        return f"{note} Its successor is {found.successor}, which may want other [parameters]."
    return f"{note} For another, look at the provider's list of models."


def _is_host(host: str, known: str) -> bool:
    return host == known or host.endswith(f".{known}")


def _end_of(provider: Provider, name: str) -> tuple[str, str] | None:
    """The end of a model, of the model that it is a version of, or of the one that it was tuned from."""
    base = name.split(":")[1] if name.startswith("ft:") else name
    dashed = _dashed(base)
    return provider.ends.get(dashed) or provider.ends.get(SNAPSHOT.sub("", dashed))
