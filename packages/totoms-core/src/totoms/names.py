"""Check names of files, buckets and secrets, before any I/O and with the same rules on every backend.

A key is an opaque string, not a path. A key that one of the three clouds cannot store unchanged is rejected on all of
them, so that a service runs on each. The sources:

- S3: https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
- GCS: https://cloud.google.com/storage/docs/objects#naming
- Azure: https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
"""

from __future__ import annotations

import mimetypes
import posixpath
import re
from collections.abc import Mapping
from typing import Final

from totoms.errors import InvalidKey

MAX_KEY_BYTES: Final = 1024
MAX_KEY_SEGMENTS: Final = 254
MAX_SECRET_NAME: Final = 255
MAX_METADATA_BYTES: Final = 2048

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
# Compiled when the first key is checked, because that takes 2 ms, and cached by `re`.
# Private use and noncharacters: "code points like \uE000" (Azure); XML cannot contain the last two of a plane (S3).
_UNUSABLE: Final = (
    "[\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff"
    + "".join(chr(plane << 16 | low) for plane in range(1, 15) for low in (0xFFFE, 0xFFFF))
    + "]"
)
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_METADATA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,127}")
_METADATA_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_CONTENT_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(?: *;[ -~]*)?", re.ASCII)


def check_key(key: str) -> str:
    """Return `key` if it is a valid name of a file.

    Rejected are:

    - the empty key, more than 1,024 bytes as UTF-8 (S3, GCS, Azure), and lone surrogates, which UTF-8 lacks;
    - control characters (Azure; GCS rejects CR and LF), private-use code points and noncharacters (Azure);
    - a backslash, which Azure turns into a slash, so that two keys would become one;
    - a segment between slashes that ends with a dot, so also ``.`` and ``..``: Azure drops the dot, S3 answers
      ``../x`` with 400, GCS rejects ``.`` and ``..``;
    - more than 254 segments (Azure);
    - a key that starts with ``.well-known/acme-challenge/`` (GCS), and the key ``soap`` (S3).

    Raises:
        InvalidKey: The message names the violated rule.
    """
    _check_text(key, "key")
    if not key:
        raise InvalidKey("A key must not be empty.")
    segments = key.split("/")
    if len(segments) > MAX_KEY_SEGMENTS:
        raise _invalid("key", key, f"has more than {MAX_KEY_SEGMENTS} segments")
    if any(segment.endswith(".") for segment in segments):
        raise _invalid("key", key, "has a segment that ends with a dot")
    if key.startswith(".well-known/acme-challenge/") or key == "soap":
        raise _invalid("key", key, "is reserved by a cloud")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it is a valid start of keys; "" is the prefix of all."""
    return _check_text(prefix, "prefix")


def check_bucket_name(name: str) -> str:
    """Return `name` if it is a valid name of a bucket on S3, GCS or Azure.

    It has 3 to 222 lower-case letters, digits, dots, hyphens and underscores, starts and ends with a letter or digit,
    and has no two dots in a row. Some clouds have stricter limits (63 characters and no underscore on S3).

    Raises:
        InvalidKey: It is not valid.
    """
    if not isinstance(name, str) or not _BUCKET.fullmatch(name) or ".." in name:
        raise InvalidKey(
            "A bucket name has 3 to 222 lower-case letters, digits, '.', '-' and '_', the first and last a letter or "
            "digit, and no '..'."
        )
    return name


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return `metadata` as a dict if every cloud stores it unchanged.

    It is sent in HTTP headers. A name is a lower-case identifier of at most 128 characters (S3 lower-cases names,
    Azure accepts identifiers only); a value is visible ASCII, with spaces inside. Together at most 2,048 bytes (S3).

    Raises:
        InvalidKey: The message contains the invalid name, never a value.
    """
    checked = dict(metadata or {})
    for name, value in checked.items():
        if not isinstance(name, str) or not _METADATA_NAME.fullmatch(name):
            raise InvalidKey(f"The metadata name {_shown(name)} is not a lower-case identifier (a-z, 0-9, _).")
        if not isinstance(value, str) or not _METADATA_VALUE.fullmatch(value):
            raise InvalidKey(f"The metadata value of {name!r} must be visible ASCII, with spaces only inside.")
    if sum(len(name) + len(value) for name, value in checked.items()) > MAX_METADATA_BYTES:
        raise InvalidKey(f"The metadata has more than {MAX_METADATA_BYTES} bytes.")
    return checked


def content_type_for(key: str, given: str | None = None) -> str:
    """Return `given` if it is a media type (RFC 9110 section 8.3.1); without it, the type for the key's extension.

    Raises:
        InvalidKey: `given` is not a media type.
    """
    if given is not None:
        if not isinstance(given, str) or len(given) > 255 or not _CONTENT_TYPE.fullmatch(given):
            raise InvalidKey("content_type must be a media type, such as text/plain.")
        return given
    # Only the extension, because guess_type would parse a key such as "data:text/html,x" as a URL.
    guessed, encoding = mimetypes.guess_type("x" + posixpath.splitext(key)[1])
    if encoding == "gzip":
        return "application/gzip"
    return guessed if guessed and not encoding else "application/octet-stream"


def check_secret_name(name: str, what: str = "secret name") -> str:
    """Return `name` if it is a valid name of a secret: 1 to 255 characters, none of them a control character.

    Raises:
        InvalidKey: It is not valid.
    """
    if not isinstance(name, str) or not name:
        raise InvalidKey(f"A {what} must be a non-empty string.")
    if len(name) > MAX_SECRET_NAME:
        raise InvalidKey(f"A {what} has at most {MAX_SECRET_NAME} characters.")
    if _CONTROL.search(name) or _SURROGATE.search(name):
        raise _invalid(what, name, "has a control character or a lone surrogate")
    return name


def _check_text(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidKey(f"A {what} must be a string, not {type(text).__name__}.")
    # Check the characters first, to not encode a huge string.
    if len(text) > MAX_KEY_BYTES:
        raise InvalidKey(f"A {what} has at most {MAX_KEY_BYTES} bytes as UTF-8.")
    if _SURROGATE.search(text):
        raise _invalid(what, text, "has a lone surrogate")
    if len(text.encode()) > MAX_KEY_BYTES:
        raise InvalidKey(f"A {what} has at most {MAX_KEY_BYTES} bytes as UTF-8.")
    if _CONTROL.search(text) or re.search(_UNUSABLE, text):
        raise _invalid(what, text, "has a control, private-use or noncharacter code point")
    if "\\" in text:
        raise _invalid(what, text, "has a backslash")
    return text


def _invalid(what: str, name: str, why: str) -> InvalidKey:
    return InvalidKey(f"The {what} {_shown(name)} {why}.", resource=_shown(name))


def _shown(name: object) -> str:
    # ASCII and short, because callers choose names, and must not forge or flood log lines.
    text = ascii(name)
    return text if len(text) <= 100 else text[:97] + "..."
