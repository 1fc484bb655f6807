"""One HTTPS request as the SDK would make it: through its proxies, and trusting whom it trusts."""

from __future__ import annotations

import os
from typing import Any, Final

import botocore.session
from botocore.awsrequest import AWSPreparedRequest
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from totoms.errors import Unavailable

_CONNECT_SECONDS: Final = 3
_READ_SECONDS: Final = 5
_MOST_BYTES: Final = 64 * 1024


def https_get(url: str) -> bytes:
    """GET a URL and return the body; no redirect is followed. It blocks: call it in a thread.

    Raises:
        Unavailable: The answer was not 200, or larger than 64 KiB.
        botocore.exceptions.HTTPClientError: There was none.
    """
    trusted = botocore.session.Session().get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    settings: dict[str, Any] = {
        "verify": trusted or True, "proxies": get_environ_proxies(url), "timeout": (_CONNECT_SECONDS, _READ_SECONDS)
    }  # fmt: skip
    session = URLLib3Session(**settings)
    headers: Any = {"Accept-Encoding": "identity"}
    try:
        answer = session.send(AWSPreparedRequest("GET", url, headers, None, True))
        body = bytes(answer.raw.read(_MOST_BYTES + 1))
        if answer.status_code != 200 or len(body) > _MOST_BYTES:
            raise Unavailable(f"It was answered {answer.status_code}, with {len(body)} bytes.", resource=url)
        return body
    finally:
        session.close()
