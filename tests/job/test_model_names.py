"""Which names mean one model: spellings of providers, gateways and servers, and names that mean another one."""

import pytest

from pipeline.job.model_names import is_news, is_router, is_same_model, names_models, served_text

SAME = [
    ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"),  # OpenAI: an alias is answered by its snapshot
    ("gpt-4", "gpt-4-0613"),
    ("gpt-5.5", "gpt-5.5-2026-04-23"),  # mnfst/llm-gateway#2620
    ("anthropic/claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001"),
    ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),  # Anthropic's aliases
    ("claude-sonnet-4-0", "claude-sonnet-4-20250514"),
    ("anthropic/claude-3.5-sonnet", "claude-3-5-sonnet-20241022"),  # OpenRouter's spelling
    ("claude-sonnet-4@20250514", "claude-sonnet-4-20250514"),  # Vertex
    ("us.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4-20250514"),  # Bedrock
    ("databricks-claude-sonnet-4", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
    ("openai/gpt-4o", "gpt-4o"),
    ("gpt-4o", "openai/gpt-4o-2024-11-20"),
    ("gpt-35-turbo", "gpt-3.5-turbo-0125"),  # Azure
    ("models/gemini-2.5-flash", "gemini-2.5-flash"),
    ("google/gemini-2.5-flash", "gemini-2.5-flash-preview-09-2025"),
    ("gemini-2.5-pro", "gemini-2.5-pro-preview-05-06"),
    ("gemini-1.5-pro", "gemini-1.5-pro-002"),
    ("gemini-flash-latest", "gemini-3.5-flash"),
    ("mistral-large-latest", "mistral-large-2411"),
    ("kimi-k2", "moonshotai/Kimi-K2-0905"),
    ("grok-4", "grok-4-0709"),
    ("grok-4.20-reasoning", "grok-4.20-0309-reasoning"),
    ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama-3.1-8b-instruct"),
    ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1"),
    ("deepseek/deepseek-r1:free", "deepseek/deepseek-r1-0528:free"),
    ("meta/llama-3.3-70b-instruct-maas", "meta/llama-3.3-70b-instruct"),
    ("llama3.2", "llama3.2:latest"),  # Ollama
    ("qwen3:8b", "qwen3:8b-q4_K_M"),
    ("Llama-3.2-3B-Instruct", "/models/Llama-3.2-3B-Instruct-Q4_K_M.gguf"),  # llama.cpp, ggml-org/llama.cpp#17668
    ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWQ"),
    ("anthropic/claude-sonnet-4.5", "anthropic/claude-4.5-sonnet-20250929"),  # OpenRouter
    ("anthropic/claude-opus-4.1", "anthropic/claude-4.1-opus-20250805"),
    ("GPT-4o", "gpt-4o"),
    ("ft:gpt-4o-mini-2024-07-18:acme::A1b2C3", "ft:gpt-4o-mini-2024-07-18:acme::A1b2C3"),
]

OTHER = [
    ("claude-3-5-sonnet", "claude-5-3-sonnet"),
    ("gpt-4.1-mini", "gpt-4.1"),
    ("gpt-4.1-mini", "gpt-4.1-nano-2025-04-14"),
    ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20"),
    ("gpt-4-0613", "gpt-4-0314"),
    ("gpt-6-luna-2026-07-01", "gpt-6-terra"),
    ("anthropic/claude-haiku-4-5-20251001", "gemini/gemini-3.5-flash"),  # mnfst/llm-gateway#2620
    ("claude-sonnet-4", "claude-sonnet-4-5"),
    ("grok-code-fast-1", "grok-build-0.1"),  # xAI's redirect of May 2026
    ("deepseek-v4-pro", "deepseek-v4.1-flash"),  # DeepSeek's of September 2026
    ("gemini-2.5-flash", "gemini-2.5-flash-lite"),
    ("gemini-flash-latest", "gemini-2.5-flash-lite"),
    ("gemini-2.5-flash", "gemini-3.5-flash"),
    ("kimi-k2-0711", "kimi-k2-0905"),
    ("llama3.2:3b", "llama3.2:1b"),
    ("Qwen3-8B", "Qwen3-14B"),
    ("ft:gpt-4o-mini-2024-07-18:acme::A1b2C3", "gpt-4o-mini-2024-07-18"),
    ("my-deploy", "gpt-4o-2024-11-20"),
]


@pytest.mark.parametrize(("asked", "served"), SAME)
def test_another_spelling_is_the_same_model(asked: str, served: str) -> None:
    assert is_same_model(asked, served)


@pytest.mark.parametrize(("asked", "served"), OTHER)
def test_another_family_version_size_or_date_is_another_model(asked: str, served: str) -> None:
    assert not is_same_model(asked, served)


@pytest.mark.parametrize("name", ["openrouter/auto", "openrouter/free", "auto", "azure/model-router", "@preset/mine"])
def test_some_names_stand_for_many_models(name: str) -> None:
    assert is_router(name)
    assert not is_router("openai/gpt-4o")


def test_a_name_means_a_model_at_a_provider_and_not_at_azure_or_on_the_machine() -> None:
    assert all(map(names_models, ["api.openai.com", "eu.api.openai.com:443", "openrouter.ai", "api.x.ai"]))
    assert not any(map(names_models, ["x.openai.azure.com", "127.0.0.1:8000", "max.ai", "notopenai.com", ""]))


def test_several_models_are_news_everywhere_and_one_other_model_at_a_provider() -> None:
    assert is_news("127.0.0.1", "m", {"a-model": 5, "b-model": 1})
    assert not is_news("127.0.0.1", "m", {"a-model": 5, "A-Model": 1})
    assert not is_news("127.0.0.1", "m", {"a-model": 5})
    assert not is_news("127.0.0.1", "m", {"a-model": 5, "taken-back": 0})
    assert is_news("api.openai.com", "gpt-4o", {"gpt-5": 5})
    assert not is_news("api.openai.com", "gpt-4o", {"gpt-4o-2024-11-20": 5})
    assert not is_news("api.openai.com", "gpt-4o", {})


def test_the_models_that_answered_are_listed_by_their_answers_and_many_are_summed_up() -> None:
    two = {"gpt-6-terra": 3, "gpt-6-luna-2026-07-01": 81_240}
    assert served_text("gpt-6", two) == (
        "2 models answered for gpt-6: gpt-6-luna-2026-07-01 (81,240 answers), gpt-6-terra (3 answers)"
    )
    many = {f"model-{number}": 1 for number in range(9)}
    assert served_text("openrouter/auto", many).endswith("model-4 (1 answer), 4 others")
