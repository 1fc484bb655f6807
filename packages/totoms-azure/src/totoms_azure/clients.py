"""The SDK's clients that a process shares, and the credential that they use."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final

from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError, ServiceResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential

from totoms.plugin import ClientRegistry, run_in_thread

CLIENTS: Final = ClientRegistry()
"""The credential, and the clients for files, secrets and administration."""
RETRY: Final[dict[str, Any]] = {"retry_total": 4, "retry_backoff_factor": 0.2, "retry_backoff_max": 4}
"""The SDK's own retry over HTTP. By default it retries for minutes."""

_METADATA_SERVICE: Final = "169.254.169.254"
"""Where machines on Azure get their identity. Outside Azure nothing answers there, and that is not an outage."""
_TOKEN_RETRY: Final[dict[str, Any]] = {"retry_total": 3, "retry_backoff_factor": 0.2, "retry_backoff_max": 2}
_TOKEN_TIMEOUTS: Final[dict[str, Any]] = {"connection_timeout": 2, "read_timeout": 5}
"""Seconds. By default the SDK tries for minutes."""
_LONGEST_PAUSE: Final = 2.0

# At INFO these loggers write a dozen lines for each request. At DEBUG urllib3 writes addresses, and a connection string
# may put its signature into them. To see them, set the level of each by its name.
for _name, _level in {
    "azure": logging.WARNING,
    "msal": logging.WARNING,
    "urllib3.connectionpool": logging.INFO,
}.items():
    if (_verbose := logging.getLogger(_name)).level == logging.NOTSET:
        _verbose.setLevel(_level)

_last_failure = threading.local()


class Credential(DefaultAzureCredential):
    """A `DefaultAzureCredential` that distinguishes an outage from a refusal.

    Its error has the failure of the network as its cause, if there was one.
    """

    def __init__(self) -> None:
        super().__init__(transport=_Transport(**_TOKEN_TIMEOUTS), **_TOKEN_RETRY)

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token; the arguments are those of the SDK's protocol `TokenCredential`."""
        with _outage_as_cause():
            return super().get_token(*scopes, **options)

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return a token; the arguments are those of the SDK's protocol `SupportsTokenInfo`."""
        with _outage_as_cause():
            return super().get_token_info(*scopes, options=options)


def credential() -> Credential:
    """Return the credential of this process. It may block: call it in a thread."""
    return CLIENTS.get("credential", Credential)


class AsyncCredential:
    """The same credential for the SDK's asynchronous clients: it gets tokens in a thread."""

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token; the arguments are those of the SDK's protocol `AsyncTokenCredential`."""
        return await run_in_thread(lambda: credential().get_token(*scopes, **options))

    async def close(self) -> None:
        """Do nothing: other clients use the credential, too."""

    async def __aenter__(self) -> AsyncCredential:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Do nothing."""


class _Transport(RequestsTransport):  # type: ignore[misc]
    """Remembers, for each thread, the last failure of the network."""

    def send(self, request: Any, **options: Any) -> Any:
        try:
            answer = super().send(request, **options)
        except (ServiceRequestError, ServiceResponseError) as error:
            if _METADATA_SERVICE not in request.url:
                _last_failure.error = error
            raise
        failed = answer.status_code == 429 or answer.status_code >= 500
        _last_failure.error = ServiceResponseError(f"The status was {answer.status_code}.") if failed else None
        return answer

    def sleep(self, duration: float) -> None:
        """Pause before the next try, but not for the minute that a 429 asks for: no caller waits that long."""
        super().sleep(min(duration, _LONGEST_PAUSE))


@contextlib.contextmanager
def _outage_as_cause() -> Iterator[None]:
    _last_failure.error = None
    try:
        yield
    except ClientAuthenticationError as error:
        if _last_failure.error is None:
            raise
        raise error from _last_failure.error
    except (ServiceRequestError, ServiceResponseError) as error:
        # The SDK raises these once a credential has worked. As they are, the client would repeat its request, each
        # time with all the tries for a token.
        raise ClientAuthenticationError("No token is available now.") from error
    finally:
        _last_failure.error = None
