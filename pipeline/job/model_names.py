"""Whether two names mean one model: the one that was asked for, and the one that an answer names.

Pure. Providers and servers spell a model in many ways; other spellings are no news, another model is.
"""

import re
from collections.abc import Mapping

OWN_HOSTS = (
    "openai.com",
    "googleapis.com",
    "anthropic.com",
    "x.ai",
    "deepseek.com",
    "mistral.ai",
    "groq.com",
    "together.xyz",
    "together.ai",
    "fireworks.ai",
    "openrouter.ai",
    "cohere.com",
    "cohere.ai",
    "moonshot.ai",
    "moonshot.cn",
    "aliyuncs.com",
    "cerebras.ai",
    "perplexity.ai",
    "z.ai",
    "bigmodel.cn",
    "minimax.io",
    "minimaxi.com",
    "deepinfra.com",
    "sambanova.ai",
    "amazonaws.com",
)
"""Hosts that answer under the names of models. Elsewhere a name may be anything: of a deployment (Azure), an alias of a
gateway, or the file that a server on the machine was started with."""

ROUTERS = frozenset({"auto", "router", "model-router", "auto-router", "smart-router"})
"""The last parts of names that stand for many models."""

TAG_WORDS = frozenset({"free", "nitro", "floor", "online", "beta", "extended", "thinking", "exacto", "latest", "batch"})
"""What stands after a colon and names no other model: OpenRouter's variants, Ollama's `latest`."""

CLOUD_PREFIX = re.compile(
    r"(?:(?:us|eu|apac|au|jp|ca|global|us-gov)\.)?(?:anthropic|meta|amazon|mistral|openai|deepseek|qwen|cohere|ai21|google"
    r"|moonshotai|minimax|nvidia|zai|writer)\.|databricks-"
)
"""What Bedrock and Databricks put before a name: `us.anthropic.claude-…`."""

DATE = re.compile(
    r"[-@](20\d\d-[01]\d-[0-3]\d|20\d\d-[01]\d|[01]\d-20\d\d|20\d{6}|2\d[01]\d[0-3]\d|[01]\d-[0-3]\d|\d{4}|00\d)(?![^-])"
)
"""The date or number of a snapshot: `2025-04-14`, `20250514`, `0613`, `2411`, `09-2025`, `05-06`, `002`."""

STAGE = re.compile(r"-(?:latest|preview|exp|experimental|stable|default|beta|maas)(?![^-])")
"""Words for the stage of a model, not for another one."""

PRECISION = re.compile(
    r"(?:-(?:gguf|awq|gptq|w\d+a\d+|fp\d+|bf16|f16|int[48]|nvfp4|mxfp4|exl[23]|mlx|[3-8]bit|dynamic|quantized"
    r"|i?q\d(?:-(?:k|0|1|xs|xxs|nl))?(?:-(?:s|m|l|xl))?))+$"
)
"""The precision of the weights, as servers on one's own machine name it."""

NAMES_SHOWN = 5
"""How many names a text lists."""


def is_same_model(asked: str, served: str) -> bool:
    """Whether a served name may be the model that was asked for; both may also be names that answers gave.

    Not counted are case, what stands before the name (`openai/`, `models/`, a path, a region), separators, a stage such
    as `-latest`, the precision of weights, and a date that only one of them has.
    """
    if asked == served:
        return True
    name, dates, tag = _parts(asked)
    other, other_dates, other_tag = _parts(served)
    if tag and other_tag and tag != other_tag:
        return False
    if dates and other_dates and dates not in other_dates and other_dates not in dates:
        return False
    if name == other or _words(name) == _words(other):  # claude-4.5-sonnet is claude-sonnet-4.5
        return True
    if not re.search(r"latest$", asked.lower()):
        return False
    # `gemini-flash-latest` is answered by `gemini-2.5-flash`: only numbers are added
    words, others = set(re.findall(r"[a-z]+", name)), set(re.findall(r"[a-z]+", other))
    numbers, other_numbers = set(re.findall(r"\d+", name)), set(re.findall(r"\d+", other))
    return words == others and numbers <= other_numbers


def is_router(asked: str) -> bool:
    """Whether a name stands for many models, among which a gateway chooses."""
    name = asked.lower()
    return name.startswith(("openrouter/", "@preset/")) or name.rpartition("/")[2] in ROUTERS


def names_models(host: str) -> bool:
    """Whether a host answers under the names of models, so that another name means another model."""
    host = host.rpartition("@")[2].partition(":")[0].lower()
    return any(host == own or host.endswith(f".{own}") for own in OWN_HOSTS) and not host.endswith("azure.com")


def is_news(host: str, asked: str, served: Mapping[str, int]) -> bool:
    """Whether the names that answers gave are to be told: there are several models, or another one than was asked."""
    names = [name for name, count in served.items() if count]
    if len(names) > 1 and not all(is_same_model(names[0], name) for name in names[1:]):
        return True
    return bool(names) and names_models(host) and not is_router(asked) and not is_same_model(asked, names[0])


def served_text(asked: str, served: Mapping[str, int]) -> str:
    """`2 models answered for gpt-6: gpt-6-luna-2026-07-01 (81,240 answers), gpt-6-terra (3 answers)`."""
    by_count = sorted(((name, count) for name, count in served.items() if count), key=lambda item: -item[1])
    shown = [f"{name or 'others'} ({count:,} answer{'s' * (count != 1)})" for name, count in by_count[:NAMES_SHOWN]]
    shown += [f"{len(by_count) - NAMES_SHOWN:,} others"] if len(by_count) > NAMES_SHOWN else []
    models = "1 model" if len(by_count) == 1 else f"{len(by_count):,} models"
    return f"{models} answered for {asked}: {', '.join(shown)}"


def _words(name: str) -> list[str]:
    """The words of a name and its version numbers, sorted; versions stay whole."""
    return sorted(re.findall(r"[a-z]+|\d+(?:-\d+)*", name))


def _parts(name: str) -> tuple[str, str, str]:
    """A name in its plainest spelling, the digits of its dates, and what tells it from others after a colon."""
    name = name.lower().partition("#")[0].rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    name = re.sub(r"-v\d+:\d+$", "", CLOUD_PREFIX.sub("", name, count=1) if CLOUD_PREFIX.match(name) else name)
    name, _, tag = (name, "", "") if name.startswith("ft:") else name.partition(":")
    name = re.sub(r"[._ ]", "-", name)
    name = STAGE.sub("", re.sub(r"\bv(\d)p(\d)", r"\1-\2", name).replace("gpt-35", "gpt-3-5"))
    name = PRECISION.sub("", name)
    dates = "".join(re.sub(r"\D", "", found) for found in DATE.findall(name))
    name = DATE.sub("", name).removesuffix("-0")  # claude-sonnet-4-0 is claude-sonnet-4-20250514
    tag = PRECISION.sub("", "-" + re.sub(r"[._ ]", "-", tag)).strip("-")
    return re.sub(r"(?<=[a-z])-(?=\d)", "", name), dates, "" if tag in TAG_WORDS or not re.search(r"\d", tag) else tag
