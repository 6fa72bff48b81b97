"""What a secret looks like: long and random, or random behind a prefix that providers put before their keys.

A key is made by a machine, so hardly two neighbouring characters of it follow each other as they do in words, years,
names of models or on a keyboard. The placeholders that local servers are given as keys (`not-needed`,
`sk-no-key-required`, `token-abc123`, `sk-1234`) are words and counts, and so they are no secrets.
"""

import re
from itertools import pairwise

HIDDEN = "***"
"""What stands in place of a secret."""

SECRET_CHARACTERS_MIN = 8
"""The length from which a key is hidden in errors, headers and logs; a shorter key is not hidden."""

RANDOM_CHARACTERS_MIN = 16
"""A shorter text never counts as a secret, however random it is, unless it has a known prefix."""

RANDOMNESS_MIN = 8
"""The least `randomness` of a secret. Words, dates and names of models have up to 7, 32 random characters some 20."""

PREFIXED_CHARACTERS_MIN, PREFIXED_RANDOMNESS_MIN = 10, 5
"""The least length and `randomness` of what follows a known prefix."""

LOOKED_AT_CHARACTERS = 4_000
"""How much of a text is looked at: no key is longer, and a text of megabytes must not take seconds."""

PREFIXES = (
    "sk[-_]",  # OpenAI, Anthropic (sk-ant-), OpenRouter (sk-or-), DeepSeek, Moonshot, LiteLLM, Stripe
    "AIza|AQ[.]|ya29[.]",  # Google: API keys, the newer ones, OAuth
    "gsk_",  # Groq
    "hf_|api_org_",  # Hugging Face
    "xai-",
    "fw_|fpk_",  # Fireworks
    "nvapi-",
    "pplx-",  # Perplexity
    "r8_",  # Replicate
    "csk-",  # Cerebras
    "tgp_v1_",  # Together
    "dapi|dkea",  # Databricks
    "ABSK|AKIA|ASIA|bedrock-api-key-",  # AWS
    "esecret_|secret_",  # Anyscale
    "pa-|al-",  # Voyage
    "jina_|tvly-|pcsk_|co_|up_|rpa_|ms-",  # Jina, Tavily, Pinecone, Cohere, Upstage, RunPod, ModelScope
    "bce-v3/",  # Baidu
    "gh[opusr]_|github_pat_|glpat-",  # GitHub Models, GitLab
    "xox[abeoprs]-|lsv2_|lin_api_|pat-|npm_|SG[.]",
    "eyJ",  # JSON Web Tokens
)
"""What keys of providers and gateways begin with. A key may have any other beginning: then its look alone decides."""

PREFIX = re.compile("|".join(PREFIXES))

IDENTIFIER = re.compile(r"(?:org|proj|project|user|asst|req|ft|accounts)[-_:/]")
"""What identifiers begin with that are random and no secrets, such as OpenAI's of organisations and projects."""

FOLLOWERS = {
    "a": "bcdgilmnprstuy",
    "b": "eilu",
    "c": "acehiklortu",
    "d": "aeiosu",
    "e": "acdefglmnprstvxy",
    "f": "aefio",
    "g": "aeir",
    "h": "aeio",
    "i": "abcdefglmnoprstv",
    "k": "e",
    "l": "adeilostuy",
    "m": "abeimop",
    "n": "acdefgiost",
    "o": "cdlmnoprstuvw",
    "p": "aeiloprtu",
    "q": "u",
    "r": "acdeimorstuy",
    "s": "acehikopstu",
    "t": "aehiorstuy",
    "u": "abeilmnprst",
    "v": "aei",
    "w": "aehi",
}
"""The letters that often follow a letter in English: nine of ten pairs in a text, a quarter of random ones."""

ROWS = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Letters and digits as people count and type them."""

NATURAL = frozenset(
    [first + second for first, seconds in FOLLOWERS.items() for second in seconds]
    + [a + b for row in ROWS for a, b in pairwise(row)]
    + [b + a for row in ROWS[:2] for a, b in pairwise(row)]
)


def is_secret(text: str) -> bool:
    """Whether a text looks like a secret: nobody writes it by chance, so it may be hidden even in an answer."""
    text = text[:LOOKED_AT_CHARACTERS]
    known = PREFIX.match(text)
    if known is not None:
        rest = text[known.end() :]
        if len(rest) >= PREFIXED_CHARACTERS_MIN and randomness(rest) >= PREFIXED_RANDOMNESS_MIN:
            return True
    if len(text) < RANDOM_CHARACTERS_MIN or IDENTIFIER.match(text):
        return False
    return randomness(text) >= RANDOMNESS_MIN


def randomness(text: str) -> int:
    """Score how random a text is: the highest score that any part of it reaches.

    A pair of neighbouring characters that is rare in words adds one; a pair that is common in words takes one away, if
    the pair before it was common, too. Not counted are repeated pairs, and pairs with a character that is not an ASCII
    letter or digit. The time is linear in the text.
    """
    best = here = 0
    seen: set[str] = set()
    was_natural = False
    lower = text.lower()
    for at in range(1, len(lower)):
        pair = lower[at - 1 : at + 1]
        is_natural = pair in NATURAL and not (text[at - 1].islower() and text[at].isupper())
        if is_natural:
            here = max(0, here - was_natural)
        elif pair[0] != pair[1] and pair not in seen and pair.isalnum() and pair.isascii():
            seen.add(pair)
            here += 1
            best = max(best, here)
        was_natural = is_natural
    return best
