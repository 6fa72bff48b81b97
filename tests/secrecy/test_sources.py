"""A header holds a secret by its name or by the look of its value; a Basic header holds a name and a password."""

from base64 import b64encode

import pytest
from keys import invented_key, invented_uuid

from pipeline.secrecy.sources import login_secrets, secrets_of_header

KEY = invented_key("Azure")


@pytest.mark.parametrize("name", ["X-Credential", "Ocp-Apim-Subscription", "X-Signature", "X-Tenant", "X-Anything"])
@pytest.mark.parametrize(
    "value",
    ["{}", "Bearer {}", "Token {}", "ApiKey {}", "key={}", 'Signature keyId="me", signature="{}"', "a=b; session={}",
     "https://me:{}@host/", "https://host/?sig={}&v=1"],
)  # fmt: skip
def test_a_value_that_looks_like_a_secret_is_one_whatever_its_headers_name(name: str, value: str) -> None:
    assert KEY in secrets_of_header(name, value.format(KEY))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Title", "my project"),
        ("anthropic-version", "2023-06-01"),
        ("OpenAI-Beta", "assistants=v2"),
        ("HTTP-Referer", "https://example.com/reviews?page=2"),
        ("OpenAI-Organization", "org-AbCdEfGh12345678IjKlMnOp"),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:109.0) Gecko/20100101"),
        ("Accept-Language", "en-US,en;q=0.9,de;q=0.8"),
    ],
)
def test_a_value_that_does_not_look_like_a_secret_is_none(name: str, value: str) -> None:
    assert secrets_of_header(name, value) == []


@pytest.mark.parametrize("name", ["Authorization", "X-Api-Key", "X-Token", "Client-Secret", "Cookie", "X-Password"])
def test_a_header_whose_name_says_secret_holds_one_whatever_its_value(name: str) -> None:
    assert {"Token hunter22", "hunter22"} <= set(secrets_of_header(name, "Token hunter22"))


def test_each_value_of_a_cookie_is_a_secret() -> None:
    assert {"hunter22", invented_uuid()} <= set(secrets_of_header("Cookie", f"a=hunter22; b={invented_uuid()}; c=d"))


@pytest.mark.parametrize("name", ["Authorization", "X-Login"])
def test_name_and_password_of_a_basic_header_are_secrets_together_and_the_password_alone(name: str) -> None:
    encoded = b64encode(b"anna:geheim-12").decode()
    found = secrets_of_header(name, f"Basic {encoded}")
    assert {f"Basic {encoded}", encoded, "anna:geheim-12", "geheim-12"} <= set(found)
    assert "anna" not in found


@pytest.mark.parametrize("value", ["Basic", "Basic !!!", "Basic /////w==", "Basic YWJj"])
def test_a_basic_header_that_is_none_is_a_value_like_others(value: str) -> None:
    assert set(secrets_of_header("Authorization", value)) >= {value}


def test_a_login_is_known_in_each_spelling() -> None:
    assert login_secrets("a", "p") == ["a:p", "p", "YTpw", "YTpw"]
