"""Invented keys of the true shape of providers' keys, and the placeholders that local servers are given as keys."""

import random
import string
from base64 import b64encode

ALNUM, HEX = string.ascii_letters + string.digits, "0123456789abcdef"
URL64 = ALNUM + "-_"

SHAPES: dict[str, tuple[str, str, int]] = {
    "OpenAI": ("sk-", ALNUM, 48),
    "OpenAI, of a project": ("sk-proj-", URL64, 156),
    "Anthropic": ("sk-ant-api03-", URL64, 95),
    "Google": ("AIza", URL64, 35),
    "Google, newer": ("AQ.", URL64, 50),
    "Google OAuth": ("ya29.", URL64, 150),
    "Groq": ("gsk_", ALNUM, 52),
    "Hugging Face": ("hf_", string.ascii_letters, 34),
    "xAI": ("xai-", ALNUM, 80),
    "Mistral": ("", ALNUM, 32),
    "Cohere": ("", ALNUM, 40),
    "DeepSeek": ("sk-", HEX, 32),
    "Together": ("", HEX, 64),
    "Together, newer": ("tgp_v1_", URL64, 43),
    "Fireworks": ("fw_", ALNUM, 24),
    "OpenRouter": ("sk-or-v1-", HEX, 64),
    "Azure": ("", HEX, 32),
    "Azure, newer": ("", ALNUM, 84),
    "NVIDIA": ("nvapi-", URL64, 64),
    "Perplexity": ("pplx-", ALNUM, 48),
    "Replicate": ("r8_", ALNUM, 37),
    "Cerebras": ("csk-", string.ascii_lowercase + string.digits, 48),
    "Databricks": ("dapi", HEX, 32),
    "Bedrock": ("ABSK", ALNUM + "+/", 128),
    "Cloudflare": ("", URL64, 40),
    "Anyscale": ("esecret_", string.ascii_lowercase + string.digits, 26),
    "DeepInfra": ("", ALNUM, 32),
    "Voyage": ("pa-", URL64, 43),
    "GitHub Models": ("ghp_", ALNUM, 36),
    "Moonshot": ("sk-", ALNUM, 48),
    "LiteLLM": ("sk-", URL64, 22),
}
"""From the provider to what its keys begin with, the letters of the rest, and the rest's length."""

PLACEHOLDERS = [
    "not-needed",
    "anything",
    "EMPTY",
    "none",
    "ollama",
    "lm-studio",
    "sk-no-key-required",
    "dummy",
    "test",
    "local",
    "fake-key",
    "placeholder",
    "token-abc123",
    "sk-1234",
    "no-key",
    "no_key_needed",
    "xxx",
    "changeme",
    "your-api-key-here",
    "YOUR_API_KEY_HERE",
    "<your-api-key>",
    "sk-xxxx",
    "password",
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "sk-proj-xxxxxxxxxxxxxxxxxxxxxxxx",
    "sk-12345678901234567890123456789012",
    "sk-1234567890abcdef1234567890abcdef",
    "sk-abcdefghijklmnopqrstuvwxyz",
    "00000000-0000-0000-0000-000000000000",
    "11111111-2222-3333-4444-555555555555",
    "deadbeefdeadbeefdeadbeefdeadbeef",
    "sk-AmethystFree",
    "sk-fake-key-for-local-testing",
    "my-secret-key-12345",
    "this-is-a-fake-key-2024",
    "test-key-0000000000",
    "correct-horse-battery-staple",
    "qwertyuiopasdfghjklzxcvbnm",
    "supersecretpassword",
    "llama.cpp-no-api-key-needed",
    "gpt-4.1-mini-2025-04-14",
    "claude-3-5-sonnet-20241022-v2:0",
    "Mixtral-8x7B-Instruct-v0.1",
    "meta-llama/Llama-3.1-70B-Instruct",
    "unverständlich-und-nicht-bewertbar",
    "pneumonoultramicroscopicsilicovolcanoconiosis",
    "vllm-api-key-2024-secure",
]
"""What people put where a key is asked for and none is needed."""


def invented_key(provider: str, seed: int = 0) -> str:
    """A key of a provider's shape that no provider ever gave out."""
    beginning, letters, length = SHAPES[provider]
    rng = random.Random(f"{provider} {seed}")
    return beginning + "".join(rng.choices(letters, k=length))


def invented_token(seed: int = 0) -> str:
    """A JSON Web Token of nothing."""
    rng = random.Random(seed)
    parts = (b'{"alg":"HS256"}', f'{{"sub":"{seed}","exp":{rng.randrange(10**9)}}}'.encode(), rng.randbytes(32))
    return ".".join(b64encode(part, b"-_").decode().rstrip("=") for part in parts)


def invented_uuid(seed: int = 0) -> str:
    """A key as SambaNova gives it."""
    digits = random.Random(seed).randbytes(16).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
