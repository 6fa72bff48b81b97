"""The end of a model is known by its name in all spellings, and only where its provider is asked."""

from datetime import date, timedelta

import pytest

from pipeline.job.retirements import (
    LISTED_ON,
    PROVIDERS,
    WARNED_DAYS,
    Retirement,
    find_retirement,
    is_listed,
    retirement_note,
)

OPENAI, GOOGLE = "https://api.openai.com/v1", "https://generativelanguage.googleapis.com/v1beta/openai"
ANTHROPIC, OPENROUTER = "https://api.anthropic.com/v1", "https://openrouter.ai/api/v1"
GPT_41_MINI = Retirement("OpenAI", date(2027, 1, 14), "gpt-6-luna", "")


def note(model: str, today: date, base_url: str = OPENAI) -> str | None:
    return retirement_note(base_url, model, "endpoint.model", today)


@pytest.mark.parametrize(
    "name", ["gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", "ft:gpt-4.1-mini-2025-04-14:org::id", "GPT-4.1-mini"]
)
def test_versions_and_tuned_models_end_with_the_model_that_they_come_from(name: str) -> None:
    assert find_retirement(OPENAI, name) == GPT_41_MINI
    assert find_retirement("https://eu.api.openai.com/v1", name) == GPT_41_MINI


@pytest.mark.parametrize(
    ("base_url", "name", "day"),
    [
        (GOOGLE, "models/gemini-2.5-pro", "2026-12-01"),
        (GOOGLE, "google/gemini-2.5-flash", "2026-12-01"),
        (GOOGLE, "gemini-2.0-flash-001", "2026-06-01"),
        (ANTHROPIC, "claude-sonnet-4-5-20250929", "2026-11-30"),
        (ANTHROPIC, "claude-opus-4-20250514", "2026-06-15"),
        (OPENAI, "gpt-4o-2024-05-13", "2026-10-23"),  # earlier than gpt-4o itself
        (OPENAI, "gpt-4o-2024-11-20", "2027-01-14"),
        (OPENAI, "gpt-4-0613", "2026-10-23"),
        ("https://api.groq.com/openai/v1", "qwen/qwen3-32b", "2026-07-17"),
        ("https://api.deepseek.com", "deepseek-chat", "2026-07-24"),
    ],
)
def test_a_name_is_known_with_its_prefix_and_its_version(base_url: str, name: str, day: str) -> None:
    found = find_retirement(base_url, name)
    assert found is not None
    assert str(found.day) == day


@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("openai/gpt-4o-mini", "OpenAI"),
        ("openai/gpt-4o-mini:batch", "OpenAI"),
        ("anthropic/claude-sonnet-4.5", "Anthropic"),
        ("google/gemini-2.5-pro", "Google"),
    ],
)
def test_a_gateway_passes_the_end_on_and_may_have_the_model_from_others(name: str, provider: str) -> None:
    found = find_retirement(OPENROUTER, name)
    assert found is not None
    assert (found.provider, found.gateway) == (provider, "openrouter.ai")
    told = note(name, date(2026, 11, 30), OPENROUTER)
    assert told is not None
    assert "openrouter.ai may have it from others for longer." in told


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        (OPENAI, "gpt-6-luna"),
        (OPENAI, "gpt-5.4-mini"),
        (OPENAI, "gpt-4o-mini-of-mine"),
        (GOOGLE, "gemini-2.5-flash-lite"),
        (GOOGLE, "gpt-4o"),
        (OPENROUTER, "gpt-4o"),
        (OPENROUTER, "deepseek/deepseek-chat"),  # open weights: others serve it
        (OPENROUTER, "openai/gpt-oss-120b"),
        ("https://api.openai.com.example.org/v1", "gpt-4o"),
        ("https://notapi.openai.com/v1", "gpt-4o"),
        ("http://127.0.0.1:8000/v1", "gpt-4o"),  # anybody may serve anything under any name
        ("https://resource.openai.azure.com/openai/v1", "gpt-4o"),  # Azure has days of its own
        ("local:smollm2-135m", "gpt-4o"),
        (OPENAI, ""),
        (OPENAI, "ft:"),
    ],
)
def test_nothing_is_said_of_living_models_and_of_addresses_that_are_no_providers(base_url: str, name: str) -> None:
    assert find_retirement(base_url, name) is None


def test_only_the_addresses_of_listed_providers_and_gateways_are_looked_at() -> None:
    assert [is_listed(url) for url in (OPENAI, GOOGLE, OPENROUTER, "local:m", "http://localhost/v1")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_the_note_gives_the_day_the_list_the_setting_and_the_successor() -> None:
    assert note("gpt-4.1-mini", date(2026, 11, 29)) == (
        "OpenAI retires gpt-4.1-mini (endpoint.model) on 2027-01-14, in 46 days, by the list of 2026-11-29. "
        "Its successor is gpt-6-luna, which may want other [parameters]."
    )
    assert note("gpt-4.1-mini", date(2027, 1, 14)) == (
        "OpenAI retired gpt-4.1-mini (endpoint.model) on 2027-01-14, by the list of 2026-11-29. "
        "Its successor is gpt-6-luna, which may want other [parameters]."
    )
    unknown = note("gpt-5.1", date(2027, 3, 31))
    assert unknown is not None
    assert ", tomorrow, " in unknown
    assert unknown.endswith("For another, look at the provider's list of models.")


def test_a_model_is_spoken_of_from_sixty_days_before_its_end() -> None:
    first = GPT_41_MINI.day - timedelta(days=WARNED_DAYS)
    assert note("gpt-4.1-mini", first) is not None
    assert note("gpt-4.1-mini", first - timedelta(days=1)) is None


def test_no_successor_has_itself_ended_when_it_is_named() -> None:
    for provider in PROVIDERS:
        for name, (day, successor) in provider.ends.items():
            end = find_retirement(f"https://{provider.host}/v1", successor)
            assert end is None or end.day > max(LISTED_ON, date.fromisoformat(day)), name
