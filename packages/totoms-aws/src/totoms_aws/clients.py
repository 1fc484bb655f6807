"""The SDK's clients: one for each service and process, made when it is first needed, shared by all threads.

Making a client costs tens of milliseconds, and each has a pool of connections of its own; clients, unlike sessions, are
safe to share among threads (https://docs.aws.amazon.com/boto3/latest/guide/clients.html).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError

from totoms_aws.configuration import AWSConfiguration

Service = Literal["sns", "sqs", "s3", "secretsmanager", "sts"]

CONNECTIONS: Final = 50
"""Connections of one client: as many calls at a time."""
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final[dict[Service, int]] = {"sns": 10, "sqs": 10, "s3": 30, "secretsmanager": 8, "sts": 8}
"""For SQS more than a poll waits, and so little that a renewal whose answer is lost can be tried again before the lease
ends; for secrets less than a caller waits."""
_ATTEMPTS: Final = 4

# What a form may hold as it is. https://url.spec.whatwg.org/#application-x-www-form-urlencoded-percent-encode-set
_TO_QUOTE: Final = re.compile(rb"[^A-Za-z0-9_.*~-]")
_QUOTED: Final = {bytes([byte]): b"%%%02X" % byte for byte in range(256)}

# What the SDK replaces in the name of an application. https://docs.aws.amazon.com/sdkref/latest/guide/feature-appid.html
_NOT_IN_A_TOKEN: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~,-]")

# At the level DEBUG these write whole requests and answers: secrets, messages, session tokens. Who wants to read them
# sets the level of each by its name.
for _quoting in ("auth", "endpoint", "parsers"):
    _logger = logging.getLogger(f"botocore.{_quoting}")
    if _logger.level == logging.NOTSET:
        _logger.setLevel(logging.INFO)

_clients: dict[tuple[Service, str], Any] = {}
_session: Any = None
_lock = threading.Lock()


def client(service: Service, configuration: AWSConfiguration) -> Any:
    """Return the client of a service, for the region of `configuration`. It may block: call it in a thread.

    Raises:
        botocore.exceptions.BotoCoreError: The SDK's own settings are wrong, such as an unknown profile.
    """
    key = service, configuration.region
    found = _clients.get(key)
    if found is None:
        with _lock:
            found = _clients.get(key)
            if found is None:
                found = _clients[key] = _make(service, configuration.region)
    return found


def _make(service: Service, region: str) -> Any:
    # One session for all, so that credentials are fetched, and renewed, once.
    global _session
    if _session is None:
        _session = boto3.session.Session(botocore_session=botocore.session.Session())
    config = Config(
        parameter_validation=service not in ("sns", "sqs"),  # of a small request it is a twentieth; all is typed here
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS[service],
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        # What botocore signs a URL of S3 with by default knows neither all regions nor content types.
        signature_version="s3v4" if service == "s3" else None,
    )
    made = _session.client(service, region_name=region, config=config)
    settled = Config(user_agent=_user_agent(made.meta.config))
    if service == "s3" and _signs_for_another_host(made):
        style: Any = {**(made.meta.config.s3 or {}), "addressing_style": "virtual"}
        settled = settled.merge(Config(s3=style))
    made.close()
    made = _session.client(service, region_name=region, config=config.merge(settled))
    made.meta.events.register("before-parse", _refuse_half)
    if service == "sns":
        made.meta.events.register("before-call", _encode_form)
    return made


def _user_agent(config: Any) -> str:
    # The SDK puts it together for each request anew, a fifth of a small one; told it, it only adds its "extra".
    said = str(config.user_agent).removesuffix(f" {_session._session.user_agent_extra}")
    app = config.user_agent_appid
    return f"{said} app/{_NOT_IN_A_TOKEN.sub('-', app)}" if app else said


def _refuse_half(operation_model: Any, response_dict: Any, **_: Any) -> None:
    # botocore takes an answer that broke off for whole, and of JSON that cannot be parsed makes an empty answer.
    body, length = response_dict["body"], response_dict["headers"].get("content-length", "")
    has_body = isinstance(body, bytes) and operation_model.http.get("method") != "HEAD"
    if has_body and length.isdecimal() and len(body) < int(length):
        raise ConnectionClosedError(endpoint_url=operation_model.name)


def _encode_form(params: dict[str, Any], **_: Any) -> None:
    # botocore encodes a form twice, once to sign it and once to send it, letter by letter; for messages that is most of
    # what sending them takes.
    form = params["body"]
    if isinstance(form, dict):
        params["body"] = b"&".join(_quoted(name) + b"=" + _quoted(value) for name, value in form.items())


def _quoted(value: Any) -> bytes:
    return _TO_QUOTE.sub(lambda found: _QUOTED[found[0]], str(value).encode())


def _signs_for_another_host(s3: Any) -> bool:
    # Left to itself botocore calls <bucket>.s3.<region>.amazonaws.com, but signs URLs for <bucket>.s3.amazonaws.com,
    # which redirects, and which newer regions do not have. Asked for this style, which it has anyway, it does not.
    host = urlsplit(s3.meta.endpoint_url).hostname or ""
    return ".amazonaws." in host and not (s3.meta.config.s3 or {}).get("addressing_style")


def close_clients() -> None:
    """Close the connections of all clients. The next call makes new ones."""
    global _session
    with _lock:
        closing = list(_clients.values())
        _clients.clear()
        _session = None
    for one in closing:
        one.close()


def _forget() -> None:
    # A forked child shares its parent's sockets, and must not use them.
    global _lock, _session
    _clients.clear()
    _session = None
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forget)
