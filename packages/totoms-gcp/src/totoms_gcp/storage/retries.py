"""How Cloud Storage is asked: with time-outs, and again where the same request may succeed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from google.api_core import exceptions as api
from google.api_core.retry import Retry, exponential_sleep_generator

from totoms_gcp.errors import is_transient

TIMEOUT: Final = (5.0, 30.0)
"""Seconds to connect, and between two pieces of an answer."""
RETRY: Final = Retry(predicate=is_transient, initial=0.1, maximum=4.0, multiplier=2.0, timeout=15.0)
"""Instead of the client's own, which retries for two minutes."""
_PAUSES: Final = (0.1, 4.0)
_TRIES: Final = 8


def options() -> dict[str, Any]:
    """Return the arguments for both that the client's methods take."""
    return {"timeout": TIMEOUT, "retry": RETRY}


def pauses() -> Iterator[float]:
    """Return the seconds to wait between tries that achieve nothing. After the last one, give up."""
    return islice(exponential_sleep_generator(*_PAUSES), _TRIES)


def check(response: Any, *good: int) -> Any:
    """Return the response if it has one of these statuses; otherwise raise the SDK's error for it."""
    if response.status_code in good:
        return response
    raise api.from_http_response(response)


def read_error(response: Any, *_: Any, **__: Any) -> None:
    """Read the whole of an answer that is an error: a hook of `requests` for streams, which would not read it."""
    if response.status_code >= 400:
        response.content  # noqa: B018 - reading it returns the connection to the pool
