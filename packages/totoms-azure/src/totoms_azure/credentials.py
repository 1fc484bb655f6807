"""The SDK's default credential, with what failed on the way to a token told apart from a refusal of one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Final

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential

_MACHINES_OWN: Final = "169.254.169.254"
"""Where machines of Azure are told their identity. Elsewhere nobody answers there: it says nothing of an outage."""
_BOUNDED: Final[dict[str, Any]] = {
    "retry_total": 3, "retry_backoff_factor": 0.2, "retry_backoff_max": 2,
}  # fmt: skip
_WAITS: Final[dict[str, Any]] = {"connection_timeout": 2, "read_timeout": 5}
"""By itself the SDK tries for minutes."""

_LONGEST_PAUSE: Final = 2.0

_seen = threading.local()


class Credential(DefaultAzureCredential):
    """A `DefaultAzureCredential` whose error has as its cause that nobody answered, if it is that."""

    def __init__(self) -> None:
        super().__init__(transport=_Transport(**_WAITS), **_BOUNDED)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token; the arguments are those of the SDK's protocol `TokenCredential`."""
        with _told():
            return super().get_token(*scopes, **options)

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return a token; the arguments are those of the SDK's protocol `SupportsTokenInfo`."""
        with _told():
            return super().get_token_info(*scopes, options=options)


class _Transport(RequestsTransport):  # type: ignore[misc]
    """Remembers for the thread what failed on the way."""

    def send(self, request: Any, **options: Any) -> Any:
        try:
            answer = super().send(request, **options)
        except (ServiceRequestError, ServiceResponseError) as error:
            if _MACHINES_OWN not in request.url:
                _seen.error = error
            raise
        failed = answer.status_code == 429 or answer.status_code >= 500
        _seen.error = ServiceResponseError(f"Answered with {answer.status_code}.") if failed else None
        return answer

    def sleep(self, duration: float) -> None:
        """Pause before the next try; not for the minute that is asked for with a 429, as nobody waits that long."""
        super().sleep(min(duration, _LONGEST_PAUSE))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    _seen.error = None
    try:
        yield
    except ClientAuthenticationError as error:
        if _seen.error is None:
            raise
        raise error from _seen.error
    except (ServiceRequestError, ServiceResponseError) as error:
        # So it comes once a credential has worked. Whoever asked would try it again, each time with all our own tries.
        raise ClientAuthenticationError("Nobody gives out tokens now.") from error
    finally:
        _seen.error = None
