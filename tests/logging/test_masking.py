"""Masking: secrets and credentials in texts for people."""

from __future__ import annotations

import base64
import json
import os
import re
import string
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from totoms import SecretsManager, TotoEnvironment
from totoms.logging import masking
from totoms.logging.describe import printable
from totoms.logging.masking import MASK, forget_secrets, keep_identifier, mask, mask_again, remember_secret

AWKWARD = "p\"a's/s+w\\örd% =&"
FORMS = {
    "plain": lambda value: value,
    "json": lambda value: json.dumps({"key": value}),
    "json in UTF-8": lambda value: json.dumps({"key": value}, ensure_ascii=False),
    "repr": repr,
    "repr of bytes": lambda value: repr(value.encode()),
    "URL": lambda value: "https://host/?key=" + quote(value, safe=""),
    "path of a URL": lambda value: "https://host/" + quote(value),
    "form": lambda value: "key=" + quote_plus(value),
    "lower-case URL": lambda value: re.sub("%..", lambda found: found[0].lower(), quote(value, safe="")),
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 for URLs": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "base64 behind one byte": lambda value: base64.b64encode(b"u" + value.encode() + b"x").decode(),
    "base64 behind two bytes": lambda value: base64.b64encode(b"u:" + value.encode() + b"xy").decode(),
    "base64 behind three bytes": lambda value: base64.b64encode(b"me:" + value.encode() + b"xyz").decode(),
}
"""How programs quote a value."""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    forget_secrets("test")


def remember(value: str | bytes, name: str = "secret") -> None:
    remember_secret(("test", name), value if isinstance(value, bytes) else value.encode())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [AWKWARD, "simple-and-plain", "0123456789abcdef" * 4])
def test_value_is_masked_in_every_form(form: str, value: str) -> None:
    remember(value)
    quoted = FORMS[form](value)
    masked = mask(f"before {quoted} after")
    assert MASK in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert value not in masked
    if form.startswith("base64"):
        # At the ends, a character may be left of which a few bits belong to the value.
        assert len(masked.replace(MASK, "")) <= len("before  after") + 12


@given(value=st.text(string.printable + "äöü漢", min_size=8, max_size=60).filter(lambda text: len(text.strip()) >= 8))
def test_no_quoted_value_is_left(value: str) -> None:
    remember(value)
    for quote_it in (FORMS["plain"], FORMS["json"], FORMS["repr"], FORMS["URL"]):
        assert value.strip() not in mask(f"<{quote_it(value.strip())}>")
    forget_secrets("test")


def test_longer_value_is_masked_as_a_whole() -> None:
    remember("long-and-longer", "one")
    remember("long-and", "other")
    assert mask("long-and-longer, long-and") == f"{MASK}, {MASK}"


def test_each_line_of_a_value_is_masked() -> None:
    remember("-----BEGIN KEY-----\nMIIEvQIBADANBg\n  kqhkiG9w0BAQEF  \nshort\n-----END KEY-----\n")
    assert mask("a MIIEvQIBADANBg b kqhkiG9w0BAQEF c short") == f"a {MASK} b {MASK} c short"


def test_fields_of_a_document_are_masked_but_not_its_identifiers() -> None:
    remember(
        json.dumps({"username": "bloggers", "host": "db.example.com", "password": "hunter22", "more": ["nested22"]})
    )
    assert mask("bloggers:hunter22@db.example.com nested22") == f"bloggers:{MASK}@db.example.com {MASK}"


def test_value_that_is_not_text_is_masked() -> None:
    value = b"\xff\xfe0123456789"
    remember(value)
    assert mask(f"{value!r} {base64.b64encode(value).decode()}") == f"b'{MASK}' {MASK}"


def test_short_values_are_left() -> None:
    remember("1234567")
    assert mask("1234567") == "1234567"


def test_the_last_two_versions_of_a_value_are_masked() -> None:
    for value in ("version-one", "version-two", "version-two", "version-three"):
        remember(value)
    assert mask("version-one version-two version-three") == f"version-one {MASK} {MASK}"


def test_identifiers_are_left() -> None:
    remember("arn:aws:sns:eu-west-1:123456789012:posts")
    keep_identifier(("test", "secret"))
    remember("arn:aws:sns:eu-west-1:123456789012:posts")
    assert mask("arn:aws:sns:eu-west-1:123456789012:posts") == "arn:aws:sns:eu-west-1:123456789012:posts"


def test_many_secrets_are_masked() -> None:
    for number in range(100):
        remember(f"value-number-{number:03}", str(number))
    assert mask("value-number-000 value-number-099") == f"{MASK} {MASK}"
    assert len(masking._groups) >= 4


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl!", "token ***!"),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ***"),
        ("authorization=bearer%20abc.def-123", "authorization=bearer%20***"),
        ("https://a.blob/x?sv=1&sig=ab%2Fc%3D&se=2", "https://a.blob/x?sv=1&sig=***&se=2"),
        ("https://b.s3/x?X-Amz-Signature=0a1b&X-Amz-Expires=60", "https://b.s3/x?X-Amz-Signature=***&X-Amz-Expires=60"),
        ("https://b.gcs/x?x-goog-signature=0a1b'", "https://b.gcs/x?x-goog-signature=***'"),
        ("Endpoint=sb://x/;SharedAccessKey=a+b=;EntityPath=y", "Endpoint=sb://x/;SharedAccessKey=***;EntityPath=y"),
        ("AccountName=x;AccountKey=ab==;Suffix=y", "AccountName=x;AccountKey=***;Suffix=y"),
        ("mongodb://me:p@ss@db.example.com/x", "mongodb://me:***@db.example.com/x"),
        ("redis://:pass@host:6379", "redis://:***@host:6379"),
    ],
)
def test_credentials_are_masked_by_their_shape(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "Listening on http://127.0.0.1:8080",
        "http://[::1]:8080/posts/me@example.com",
        "A bearer token is needed",
        "config=1 design=2 key=3",
        "mail me@example.com: done",
        "https://user@host/x",
    ],
)
def test_ordinary_text_is_left(text: str) -> None:
    assert mask(text) == text


def test_remembered_result_ends_with_a_new_secret() -> None:
    assert mask_again("/posts/value-4711") == "/posts/value-4711"
    remember("value-4711")
    assert mask_again("/posts/value-4711") == f"/posts/{MASK}"


def test_secret_is_masked_before_a_text_is_cut() -> None:
    remember("s" * 40)
    assert "ssss" not in printable("x" * 980 + "s" * 40)


async def test_what_a_secrets_manager_read_is_masked(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "hunter22-and-more")
    monkeypatch.setenv("DATABASE_HOST", "db.example.com")
    environment = TotoEnvironment("local")
    manager = SecretsManager(environment)
    try:
        assert manager.get_secret("database-password") == "hunter22-and-more"
        assert await manager.get_identifier_async("database-host") == "db.example.com"
        assert mask("hunter22-and-more@db.example.com") == f"{MASK}@db.example.com"
    finally:
        forget_secrets(environment)
    assert mask("hunter22-and-more") == "hunter22-and-more"


UNCAUGHT = """
import os
from totoms import SecretsManager, TotoEnvironment
os.environ["DATABASE_PASSWORD"] = "hunter22-and-more"
secret = SecretsManager(TotoEnvironment("local")).get_secret("database-password")
raise ValueError(f"cannot log in with {secret}") if %r else ValueError("no secret")
"""


@pytest.mark.parametrize("quoted", [True, False])
def test_uncaught_exception_is_logged_without_secrets(quoted: bool) -> None:
    done = subprocess.run([sys.executable, "-c", UNCAUGHT % quoted], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):")
    assert "hunter22" not in done.stderr
    assert done.stderr.endswith("ValueError: cannot log in with ***\n" if quoted else "ValueError: no secret\n")


FORKED = """
import os, threading
from totoms.logging import masking
masking.remember_secret("key", b"value-before-the-fork")
with masking._lock:
    child = os.fork()
    if not child:
        # As far as the child knows, its first thread holds the lock: another one needs a new lock.
        masked = []
        worker = threading.Thread(target=lambda: masked.append(masking.mask("value-before-the-fork")), daemon=True)
        worker.start()
        worker.join(60)
        os._exit(masked != ["***"])
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_child_masks_although_another_thread_held_the_lock() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], check=False).returncode == 0
