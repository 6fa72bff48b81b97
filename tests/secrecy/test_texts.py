"""Secrets are hidden in texts that are kept; words, paths, addresses, variables, labels and schemas stay."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keys import PLACEHOLDERS, SHAPES, invented_key, invented_token, invented_uuid

from pipeline.secrecy.texts import hidden_in_name, hidden_in_program, hidden_in_setting, hidden_in_text

KEY = invented_key("Mistral")
KEYS = [*(invented_key(provider) for provider in SHAPES), invented_token(), invented_uuid()]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", ["use {} now", "{}", "key={}", "'{}'", "(token: {}).", "https://host/hook/{}"])
def test_a_key_in_a_text_is_hidden(text: str, key: str) -> None:
    hidden = hidden_in_text(text.format(key))
    assert not any(key[at : at + 12] in hidden for at in range(len(key) - 12)), hidden
    assert "***" in hidden


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ('curl -H "Authorization: Bearer hunter22" u', 'curl -H "Authorization: Bearer ***" u'),
        ("curl -H 'X-Api-Key: abcd' u", "curl -H 'X-Api-Key: ***' u"),
        ("curl -u anna:geheim u", "curl -u anna:*** u"),
        ("curl https://anna:geheim@host/x", "curl https://anna:***@host/x"),
        ("PASSWORD=geheim mail me", "PASSWORD=*** mail me"),
        ("mysql --password geheim x", "mysql --password *** x"),
    ],
)
def test_a_password_is_hidden_in_a_line_of_the_shell_whatever_it_looks_like(line: str, kept: str) -> None:
    assert hidden_in_text(line, is_command=True) == kept


@pytest.mark.parametrize(
    "line",
    [
        'curl -H "Authorization: Bearer $TOKEN" -u "$U:$P" https://$U:$P@host',
        "curl -H 'X-Api-Key: '$(cat key)",
        "cp out.csv /data/3f2b6c1e-9d84-4a70-b5e2-7c1f0a9d8e63/in.csv",
        "cp 9f1c4e7ab2d85036c1fe94a7d3b8206e.csv runs/2024-10-21T12/a1b2c3.parquet",
        "mail -s 'the job is done' me@example.com < out.csv.job/summary.json",
    ],
)
def test_variables_and_paths_stay_in_a_line_of_the_shell(line: str) -> None:
    assert hidden_in_text(line, is_command=True) == line


@pytest.mark.parametrize("word", PLACEHOLDERS)
def test_a_prompt_about_keys_stays_as_it_is(word: str) -> None:
    prompt = f"Is the token {word} a password? key: sentiment; secret: none. Answer with the key, or with {word}."
    assert hidden_in_text(prompt, [word]) == prompt


def test_a_known_secret_is_hidden_though_it_does_not_look_like_one() -> None:
    assert hidden_in_text("say zq7x2k9vb4 to it", ["zq7x2k9vb4"]) == "say *** to it"
    assert hidden_in_name("data/q%2Fzq7x2k9vb4", ["q/zq7x2k9vb4"]) == "data/***"


@pytest.mark.parametrize(
    "name",
    ["/scratch/9f1c4e7ab2d85036c1fe94a7d3b8206e/job.toml", "https://abc123xyz98fj3k2.us-east-1.aws.hf.cloud/v1",
     "ft:gpt-4o-mini-2024-07-18:acme::A1b2C3d4", "https://gateway.example.com/v1/9f1c4e7ab2d85036c1fe94a7d3b8206e/me"],
)  # fmt: skip
def test_paths_addresses_and_models_may_be_random_and_stay(name: str) -> None:
    assert hidden_in_name(name) == name


def test_labels_schemas_and_columns_are_kept_to_the_letter() -> None:
    assert hidden_in_setting("answer", {"enum": KEYS}, KEYS) == {"enum": KEYS}
    assert hidden_in_setting("answer.labels", KEYS, KEYS) == KEYS
    assert hidden_in_setting("prompt.column", KEY, KEYS) == KEY


def test_a_column_in_a_template_stays_and_a_key_beside_it_is_hidden() -> None:
    template = f"key {KEY}: {{{{ row['9f1c4e7ab2d85036c1fe94a7d3b8206e'] }}}} {{% if x %}}{{{{ token }}}}{{% endif %}}"
    assert hidden_in_setting("prompt.template", template) == template.replace(KEY, "***")


def test_keys_among_the_parameters_are_hidden_and_what_files_requests_stays() -> None:
    given = {"api_key": KEY, "metadata": {"token": "none", "url": f"https://a:{KEY}@h"}, "stop": ["\n"], "seed": 4}
    filed = {"prompt_cache_key": KEY, "user": KEY, "safety_identifier": KEY}
    hidden = {"api_key": "***", "metadata": {"token": "none", "url": "https://a:***@h"}, "stop": ["\n"], "seed": 4}
    assert hidden_in_setting("parameters", {**given, **filed}) == {**hidden, **filed}


@given(st.text(max_size=200))
def test_hiding_again_changes_nothing(text: str) -> None:
    once = hidden_in_text(text, is_command=True)
    assert hidden_in_text(once, is_command=True) == once


@pytest.mark.parametrize(
    "part", ["key ", "a", "sk-", "key=", "-u a", "Aa1/", "bearer ", "://", "{{", "key: bearer  ", "@", "'", "-u a:b "]
)
def test_the_time_grows_in_line_with_the_text(part: str) -> None:
    def seconds(characters: int) -> float:
        text = part * (characters // len(part))
        began = time.process_time()
        hidden_in_text(text, is_command=True)
        hidden_in_setting("prompt.system", text)
        return time.process_time() - began

    assert seconds(100_000) < 40 * max(seconds(10_000), 0.005)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["gcloud", "auth", "print-access-token", "--quiet"], "gcloud auth print-access-token --quiet"),
        ("az account get-access-token --query accessToken", "az account get-access-token --query accessToken"),
        (["vault", "--token", "hunter2hunter", "two words"], "vault --token *** 'two words'"),
        (["sh", "-c", "curl -u me:hunter2 $URL | jq -r .key"], "sh -c 'curl -u me:*** $URL | jq -r .key'"),
        ("print --password='open", "print --password='***"),
    ],
)
def test_the_line_of_a_program_is_shown_without_secrets_and_its_options_stay(command: Any, shown: str) -> None:
    assert hidden_in_program(command) == shown
    kept = hidden_in_setting("endpoint.api_key_command", command)
    assert hidden_in_program(kept) == shown
    assert type(kept) is type(command)
