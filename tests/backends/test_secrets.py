"""Keys and passwords: what hides them, and what is no secret."""

from __future__ import annotations

import logging

import pytest

from cof_agent.backends import secrets
from cof_agent.backends.secrets import hidden, hidden_addresses


@pytest.fixture(autouse=True)
def nothing_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_given", set())


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "MISTRAL_API_KEY", "HF_TOKEN"]
)
def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "sk-0123456789")
    assert hidden("Incorrect API key: Bearer sk-0123456789!") == "Incorrect API key: Bearer ***!"
    monkeypatch.delenv(name)
    assert hidden("sk-0123456789") == "sk-0123456789"


@pytest.mark.parametrize("word", ["none", "EMPTY", "x"])
def test_a_placeholder_is_no_secret(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", word)
    secrets.keep(word, None, "")
    assert hidden(f"there is {word} of it") == f"there is {word} of it"


def test_the_longer_of_two_is_hidden_whole() -> None:
    secrets.keep("secret", "secret-and-more")
    assert hidden("secret-and-more, secret") == "***, ***"


def test_what_an_address_holds() -> None:
    secrets.keep_address("http://someone:pass%20word@host:8000/v1?api-key=0123456789&version=2024-02-01")
    said = "someone pass%20word 'pass word' 0123456789 2024-02-01 " + secrets.basic("someone", "pass word")
    assert hidden(said) == "*** *** '***' *** 2024-02-01 ***"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("--base-url http://user:pw@host/v1", "--base-url http://***@host/v1"),
        ("https://token@host:8000", "https://***@host:8000"),
        ("http://a:p@ss'word@host/x", "http://***@host/x"),
        ("http://host/v1/user@example.org", "http://host/v1/user@example.org"),
        ("mail user@example.org", "mail user@example.org"),
        ("http://host/v1?api_key=sk-1&version=2", "http://host/v1?api_key=***&version=2"),
        ("http://host/v1?v=2&X-Token=abc#top", "http://host/v1?v=2&X-Token=***#top"),
    ],
)
def test_no_address_shows_a_password_however_short(text: str, shown: str) -> None:
    assert hidden_addresses(text) == shown


def test_log_lines_and_their_tracebacks() -> None:
    secrets.keep("sk-0123456789")
    try:
        raise ValueError("bad key sk-0123456789")
    except ValueError as error:
        record = logging.LogRecord("x", 10, "f", 1, "said %s", ("sk-0123456789\x1b[31m",), (type(error), error, None))
    line = secrets.HidingFormatter("%(message)s").format(record)
    assert line.startswith("said ***\\u001b[31m\n") and "bad key ***" in line and "0123456789" not in line
