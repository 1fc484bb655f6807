"""The SDK's clients, and the threads that call them.

Creating a client takes tens of milliseconds, and each has its own pool of connections, so there is one for each service
and region. Clients, unlike sessions, may be shared by threads
(https://docs.aws.amazon.com/boto3/latest/guide/clients.html).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config

from totoms.plugin import ClientRegistry, Workers
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.private_api import (
    encode_forms_once,
    fixed_user_agent,
    refuse_truncated_answers,
    silence_quoting_loggers,
)

Service = Literal["sns", "sqs", "s3", "secretsmanager", "sts"]

PUBLISHING: Final = Workers(16, "totoms-aws publishing")
POLLING: Final = Workers(256, "totoms-aws polling")
SETTLING: Final = Workers(16, "totoms-aws settling")
UPLOADING: Final = Workers(96, "totoms-aws uploading")
"""Each kind of work has its own threads: long polls and slow publishing do not keep leases from being renewed."""

CONNECTIONS: Final = 50
"""Connections of one client, so the most calls at a time."""
_CONNECT_SECONDS: Final = 5
_READ_SECONDS: Final[dict[Service, int]] = {"sns": 10, "sqs": 10, "s3": 30, "secretsmanager": 8, "sts": 8}
"""For SQS longer than a poll, and short enough to repeat a renewal whose answer is lost before the lease ends; for
secrets shorter than callers wait."""
_ATTEMPTS: Final = 4

_clients: Final = ClientRegistry()

silence_quoting_loggers()


def client(service: Service, configuration: AWSConfiguration) -> Any:
    """Return the client of a service, for the region of `configuration`. It may block: call it in a thread.

    Raises:
        botocore.exceptions.BotoCoreError: The SDK's own settings are wrong, such as an unknown profile.
    """
    region = configuration.region
    return _clients.get((service, region), partial(_make, service, region))


def _make(service: Service, region: str) -> Any:
    session, user_agent_extra = _clients.get("session", _make_session, close=lambda _: None)
    config = Config(
        parameter_validation=service not in ("sns", "sqs"),  # a twentieth of a small request; all is typed here
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS[service],
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        # By default botocore signs S3 URLs with version 2: not all regions accept it, and it binds no content type.
        signature_version="s3v4" if service == "s3" else None,
    )
    first = session.client(service, region_name=region, config=config)
    config = config.merge(fixed_user_agent(first.meta.config, user_agent_extra))
    if service == "s3" and _signs_for_another_host(first):
        style: Any = {**(first.meta.config.s3 or {}), "addressing_style": "virtual"}
        config = config.merge(Config(s3=style))
    first.close()
    made = session.client(service, region_name=region, config=config)
    refuse_truncated_answers(made)
    if service == "sns":
        encode_forms_once(made)
    return made


def _make_session() -> tuple[boto3.session.Session, str]:
    """Return the session that all clients share, and what it adds to the User-Agent.

    Sharing it, the clients fetch and renew the credentials once.
    """
    session = botocore.session.Session()
    made = boto3.session.Session(botocore_session=session)
    return made, session.user_agent_extra


def _signs_for_another_host(s3: Any) -> bool:
    # By default botocore calls <bucket>.s3.<region>.amazonaws.com, but signs URLs for <bucket>.s3.amazonaws.com, which
    # redirects, and which newer regions do not have. With the style set that it uses anyway, it signs for the former.
    host = urlsplit(s3.meta.endpoint_url).hostname or ""
    return ".amazonaws." in host and not (s3.meta.config.s3 or {}).get("addressing_style")
