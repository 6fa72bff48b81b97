"""A command line is kept without secrets, and the places of the words that held one are known."""

import pytest
from keys import PLACEHOLDERS, invented_key

from pipeline.secrecy.command import hidden_in_command

KEY = invented_key("OpenAI")
HASH = "9f1c4e7ab2d85036c1fe94a7d3b8206e"
PLAIN = ["run", "in.csv", "-o", "out.csv"]


@pytest.mark.parametrize(
    "words",
    [
        ["--on-finish", f"curl -H 'Authorization: Bearer {KEY}' https://x"],
        [f"--on-finish=curl https://x/?key={KEY}"],
        ["--system", f"The key is {KEY}."],
        ["-p", f"{KEY} {{{{ q }}}}"],
        [f"-p{KEY}"],
        ["--set", f"parameters.api_key={KEY}"],
        [f"--set=prompt.system={KEY}"],
        ["--base-url", f"https://me:{KEY}@host/v1"],
        ["--base-url", f"https://host/{KEY}/v1"],
        ["-m", KEY],
        [f"in-{KEY}.csv"],
    ],
)
def test_a_key_in_any_word_is_hidden_and_its_place_is_known(words: list[str]) -> None:
    kept, places = hidden_in_command([*PLAIN, *words])
    assert KEY not in " ".join(kept)
    assert places == [len(PLAIN) + len(words) - 1]


@pytest.mark.parametrize(
    "words",
    [
        ["--job-dir", f"/scratch/{HASH}", "-c", f"{HASH}.toml"],
        ["--set", f"endpoint.revision={HASH}", "--set", f"parameters.prompt_cache_key={HASH}"],
        ["--system", f"@prompts/{HASH}.txt"],
        ["--set", f"answer.labels=['{HASH}']"],
        ["-p", f"{{{{ row['{HASH}'] }}}}"],
        ["-m", "ft:gpt-4o-mini-2024-07-18:acme::A1b2C3d4", "--set", "endpoint.api_key_env=OPENAI_API_KEY"],
        ["--on-finish", 'curl -H "Authorization: Bearer $TOKEN" https://example.com/done'],
        *(["--system", f"say {word}"] for word in PLACEHOLDERS),
    ],
)
def test_a_line_without_a_secret_is_kept_to_the_letter(words: list[str]) -> None:
    assert hidden_in_command([*PLAIN, *words], PLACEHOLDERS) == ([*PLAIN, *words], [])


def test_the_jobs_own_secrets_are_hidden_wherever_they_stand() -> None:
    kept, places = hidden_in_command([*PLAIN, "--job-dir", f"of-{HASH}"], [HASH])
    assert (kept[-1], places) == ("of-***", [5])
