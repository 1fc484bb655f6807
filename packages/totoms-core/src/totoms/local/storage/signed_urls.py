"""Signed URLs of the local backend. Any service with the same root folder serves them.

::

    GET or PUT <address of the service>/_files
        ?bucket=...&key=...&method=...&expires=<seconds since the epoch>&content_type=...&signature=<hexadecimal>

The signature is an HMAC over all the others, with a key of the root folder. `content_type` is empty for GET.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import parse_qsl, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from totoms.environment import TotoEnvironment
from totoms.errors import Forbidden, NotFound
from totoms.local.configuration import LocalConfiguration
from totoms.local.keys import url_key
from totoms.storage.storage import CloudStorage
from totoms.storage.streams import AsyncByteStream, ByteStream
from totoms.threads import run_transfer

if TYPE_CHECKING:
    from totoms.local.storage.storage import LocalCloudStorage

_clock: Callable[[], float] = time.time  # not Final: tests replace it
_LONGEST: Final = 8192
"""The longest query that is parsed, in characters: a key of 1,024 bytes, all escaped, fits."""
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
# An uploaded file must not run as a web page of the service.
_SAFE: Final = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox", "accept-ranges": "bytes"}


@dataclass(frozen=True, slots=True)
class Grant:
    """The request that a signed URL allows.

    Attributes:
        bucket: The name of the bucket.
        key: The key of the file.
        method: GET or PUT.
        expires: When it expires, in seconds since the epoch.
        content_type: The content type that an upload must send.
    """

    bucket: str
    key: str
    method: str
    expires: str
    content_type: str


_NAMES: Final = [field.name for field in fields(Grant)]


def sign(root: Path, bucket: str, key: str, method: str, expires_in: int, content_type: str) -> str:
    """Return a signed URL at ``SERVICE_BASE_URL``, or else at ``PORT`` on this machine."""
    # Rounded up, so that it is valid for at least `expires_in` seconds.
    expires = str(math.ceil(_clock() + expires_in))
    grant = Grant(bucket, key, method, expires, content_type if method == "PUT" else "")
    query = urlencode([*zip(_NAMES, astuple(grant), strict=True), ("signature", _signature(root, grant))])
    return f"{_address()}{LocalConfiguration.signed_urls_path}?{query}"


def verify(root: Path, method: str, query: str, content_type: str) -> Grant:
    """Verify that a signed URL allows a request, and return its grant. Blocks: it reads the key.

    Args:
        root: The root folder.
        method: The method of the request.
        query: The query of the URL.
        content_type: The content type of the request.

    Raises:
        Forbidden: The URL is not signed with the key, has expired, or does not allow the request.
    """
    given = parse_qsl(query[:_LONGEST], keep_blank_values=True)
    if [name for name, _ in given] != [*_NAMES, "signature"]:
        raise Forbidden("This is not a signed URL.")
    *values, signature = (value for _, value in given)
    grant = Grant(*values)
    if not hmac.compare_digest(_signature(root, grant).encode(), signature.encode()):
        raise Forbidden("This signed URL has a wrong signature.")
    if _clock() >= int(grant.expires):
        raise Forbidden("This signed URL has expired.")
    if grant.method != method:
        raise Forbidden(f"This signed URL is for {grant.method} only.")
    if method == "PUT" and content_type != grant.content_type:
        raise Forbidden(f"This signed URL is for the content type {grant.content_type!r} only.")
    return grant


async def respond(request: Request, environment: TotoEnvironment) -> Response:
    """Answer a request for a signed URL.

    Raises:
        Forbidden: See :func:`verify`.
        HTTPException: 404 if the file does not exist, 413 if the body is too large, 416 for a range beyond it.
        BackendError: The file cannot be read or written.
    """
    root = cast(LocalConfiguration, environment.hyperscaler_configuration).root
    content_type = request.headers.get("content-type", "")
    grant = await run_transfer(verify, root, request.method, request.url.query, content_type)
    storage = CloudStorage(grant.bucket, environment=environment)
    if grant.method == "PUT":
        etag = await storage.upload_stream_async(request.stream(), grant.key, content_type=grant.content_type)
        return Response(headers={"etag": f'"{etag}"'})
    wanted, condition = request.headers.get("range", ""), request.headers.get("if-range")
    status, headers, stream = await run_transfer(_open, storage, grant.key, wanted, condition)
    return StreamingResponse(_chunks(stream), status, headers)


async def _chunks(stream: ByteStream) -> AsyncIterator[bytes]:
    async with AsyncByteStream(stream) as chunks:
        async for chunk in chunks:
            yield chunk


def _open(
    storage: CloudStorage, key: str, wanted: str, condition: str | None
) -> tuple[int, dict[str, str], ByteStream]:
    # The whole file, or the requested range (RFC 9110 section 14). Headers and content are of one version.
    try:
        info, read = cast("LocalCloudStorage", storage).open_version(key)
    except NotFound:
        raise HTTPException(404) from None
    headers = {**_SAFE, "content-type": info.content_type, "etag": f'"{info.etag}"'}
    first, end, status = 0, info.size, 200
    found = _RANGE.fullmatch(wanted) if condition in (None, headers["etag"]) else None
    if found and any(found.groups()):  # a server may ignore several ranges, and an invalid one
        first, end = _range(found[1], found[2], info.size)
        status = 206
        headers["content-range"] = f"bytes {first}-{end - 1}/{info.size}"
    stream = read(first, end)
    if status == 206 and first >= end:
        stream.close()
        raise HTTPException(416, "No such range", headers={"content-range": f"bytes */{info.size}"})
    headers["content-length"] = str(end - first)
    return status, headers, stream


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:  # the last bytes
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


def _signature(root: Path, grant: Grant) -> str:
    return hmac.digest(url_key(root), json.dumps(astuple(grant)).encode(), "sha256").hex()


def _address() -> str:
    base = os.environ.get("SERVICE_BASE_URL", "").rstrip("/")
    return base or f"http://127.0.0.1:{os.environ.get('PORT') or 8080}"
