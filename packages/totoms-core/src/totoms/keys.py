"""Names of files, buckets and secrets: one set of rules, checked before any I/O, the same on every backend.

A key is opaque: ``../x`` would be no path but four characters. Still, what one of the three clouds cannot hold as it
stands is refused on all of them, so that a service which works here works there. The sources:

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
# Compiled, and kept by `re`, when the first key is checked: it takes 2 ms.
# Private use and noncharacters: "code points like \uE000" (Azure), and no XML can carry the last two of a plane (S3).
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
    """Return `key` if it may name a file.

    Refused are:

    - the empty key, more than 1,024 bytes as UTF-8 (S3, GCS, Azure), and what is no UTF-8: a lone surrogate;
    - control characters (Azure; GCS refuses CR and LF), private-use code points and noncharacters (Azure);
    - a backslash, which Azure turns into a slash, so that two keys would become one;
    - a segment between slashes that ends with a dot, thus also ``.`` and ``..``: Azure drops the dot, S3 answers
      ``../x`` with 400, GCS refuses ``.`` and ``..``;
    - more than 254 segments (Azure);
    - what starts with ``.well-known/acme-challenge/`` (GCS), and the key ``soap`` (S3).

    Raises:
        InvalidKey: With the rule that was broken.
    """
    _check_text(key, "key")
    if not key:
        raise InvalidKey("A key must not be empty.")
    segments = key.split("/")
    if len(segments) > MAX_KEY_SEGMENTS:
        raise _refused("key", key, f"has more than {MAX_KEY_SEGMENTS} segments")
    if any(segment.endswith(".") for segment in segments):
        raise _refused("key", key, "has a segment that ends with a dot")
    if key.startswith(".well-known/acme-challenge/") or key == "soap":
        raise _refused("key", key, "is reserved by a cloud")
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if keys can start with it; "" stands for all."""
    return _check_text(prefix, "prefix")


def check_bucket_name(name: str) -> str:
    """Return `name` if S3, GCS or Azure could have a bucket of that name.

    It has 3 to 222 lower-case letters, digits, dots, hyphens and underscores, starts and ends with a letter or digit,
    and has no two dots in a row. The clouds' own limits are narrower (63 characters, no underscore on S3).

    Raises:
        InvalidKey: It is none.
    """
    if not isinstance(name, str) or not _BUCKET.fullmatch(name) or ".." in name:
        raise InvalidKey(
            "A bucket name has 3 to 222 lower-case letters, digits, '.', '-' and '_', the first and last a letter or "
            "digit, and no '..'."
        )
    return name


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Return `metadata` as a dict if every cloud gives it back unchanged.

    It travels in HTTP headers. A name is a lower-case identifier of at most 128 characters (S3 lower-cases names,
    Azure takes identifiers only); a value is visible ASCII, with spaces inside. Together at most 2,048 bytes (S3).

    Raises:
        InvalidKey: With the name at fault. A value is never quoted.
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
    """Return `given` if it is a media type (RFC 9110 section 8.3.1), else what the key's ending suggests.

    Raises:
        InvalidKey: `given` is no media type.
    """
    if given is not None:
        if not isinstance(given, str) or len(given) > 255 or not _CONTENT_TYPE.fullmatch(given):
            raise InvalidKey("content_type must be a media type, such as text/plain.")
        return given
    # Only the ending is looked at: guess_type would read a whole key such as "data:text/html,x" as a URL.
    guessed, encoding = mimetypes.guess_type("x" + posixpath.splitext(key)[1])
    if encoding == "gzip":
        return "application/gzip"
    return guessed if guessed and not encoding else "application/octet-stream"


def check_secret_name(name: str, what: str = "secret name") -> str:
    """Return `name` if it may name a secret: 1 to 255 characters, none of them a control character.

    Raises:
        InvalidKey: It may not.
    """
    if not isinstance(name, str) or not name:
        raise InvalidKey(f"A {what} must be a string that is not empty.")
    if len(name) > MAX_SECRET_NAME:
        raise InvalidKey(f"A {what} has at most {MAX_SECRET_NAME} characters.")
    if _CONTROL.search(name) or _SURROGATE.search(name):
        raise _refused(what, name, "has a control character or is no Unicode")
    return name


def _check_text(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise InvalidKey(f"A {what} must be a string, not {type(text).__name__}.")
    # More characters than bytes allowed: no need to encode what may be huge.
    if len(text) > MAX_KEY_BYTES:
        raise InvalidKey(f"A {what} has at most {MAX_KEY_BYTES} bytes as UTF-8.")
    if _SURROGATE.search(text):
        raise _refused(what, text, "is no Unicode: it has a lone surrogate")
    if len(text.encode()) > MAX_KEY_BYTES:
        raise InvalidKey(f"A {what} has at most {MAX_KEY_BYTES} bytes as UTF-8.")
    if _CONTROL.search(text) or re.search(_UNUSABLE, text):
        raise _refused(what, text, "has a control, private-use or noncharacter code point")
    if "\\" in text:
        raise _refused(what, text, "has a backslash")
    return text


def _refused(what: str, name: str, why: str) -> InvalidKey:
    return InvalidKey(f"The {what} {_shown(name)} {why}.", resource=_shown(name))


def _shown(name: object) -> str:
    # ASCII and short: what a stranger sent must not forge or flood a log line.
    text = ascii(name)
    return text if len(text) <= 100 else text[:97] + "..."
