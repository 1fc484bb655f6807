"""How Cloud Storage is asked: with time-outs, again where it is worth it, and with answers that say what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from google.api_core import exceptions as api
from google.api_core.retry import exponential_sleep_generator
from google.cloud.storage.retry import DEFAULT_RETRY

TIMEOUT: Final = (5.0, 30.0)
"""Seconds to connect, and between two pieces of an answer."""
RETRY: Final = DEFAULT_RETRY.with_delay(initial=0.1, maximum=4.0, multiplier=2.0).with_timeout(15.0)
"""The client's own goes on for two minutes."""

_PAUSES: Final = (0.1, 4.0)
_TRIES: Final = 8


def how() -> dict[str, Any]:
    """Return the arguments of the client's methods for both."""
    return {"timeout": TIMEOUT, "retry": RETRY}


def passes(error: Exception) -> bool:
    """Tell whether it may go right another time."""
    return bool(RETRY._predicate(error))


def pauses() -> Iterator[float]:
    """Return the seconds to wait between tries that get nowhere; with the last of them it is time to give up."""
    return islice(exponential_sleep_generator(*_PAUSES), _TRIES)


def check(response: Any, *good: int) -> Any:
    """Return the response if its status is one of those; raise the SDK's error for it otherwise."""
    if response.status_code in good:
        return response
    raise api.from_http_response(response)


def read_refusal(response: Any, *_: Any, **__: Any) -> None:
    """Read the whole of an answer that is an error, as a hook of `requests`: who streams would not."""
    if response.status_code >= 400:
        response.content  # noqa: B018 - it gives the connection back
