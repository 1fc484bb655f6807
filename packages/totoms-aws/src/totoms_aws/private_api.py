"""The private parts of botocore that this package uses: why, and what happens without each.

``tests/aws/test_aws_private_api.py`` fails when one of them is gone.
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

from botocore.config import Config
from botocore.exceptions import ConnectionClosedError

_QUOTING_LOGGERS: Final = ("botocore.auth", "botocore.endpoint", "botocore.parsers")
# https://url.spec.whatwg.org/#application-x-www-form-urlencoded-percent-encode-set
_NOT_IN_A_FORM: Final = re.compile(rb"[^A-Za-z0-9_.*~-]")
_PERCENT_ENCODED: Final = {bytes([byte]): b"%%%02X" % byte for byte in range(256)}
# botocore replaces these: https://docs.aws.amazon.com/sdkref/latest/guide/feature-appid.html
_NOT_IN_A_TOKEN: Final = re.compile(r"[^A-Za-z0-9!#$%&'*+.^_`|~,-]")


def silence_quoting_loggers() -> None:
    """Set the level of the loggers of botocore that quote whole requests and answers at DEBUG to INFO.

    They quote secrets, messages and session tokens. To read these, set the level of each logger by its name. A level
    that is set already is kept. Private: the names of the loggers. Without these names: nothing is changed.
    """
    for name in _QUOTING_LOGGERS:
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)


def fixed_user_agent(config: Any, extra: str) -> Config:
    """Return the setting with which botocore sends the User-Agent that it would otherwise build for each request.

    Private: the `user_agent` of a client's configuration is the header's beginning, and ends with the session's
    `extra`, which botocore appends again. Building it takes a fifth of the time of publishing a small message.
    Without it: botocore builds it for each request.

    Args:
        config: ``client.meta.config`` of a client that was made without this.
        extra: ``user_agent_extra`` of the session.
    """
    built = getattr(config, "user_agent", None)
    if not isinstance(built, str) or "/" not in built:
        return Config()
    user_agent, application = built.removesuffix(f" {extra}"), getattr(config, "user_agent_appid", None)
    if application:
        user_agent += f" app/{_NOT_IN_A_TOKEN.sub('-', application)}"
    return Config(user_agent=user_agent)


def encode_forms_once(client: Any) -> None:
    """Encode the forms that a client of SNS sends.

    Private: in the event ``before-call`` the body is the form as a dict. botocore encodes it twice, to sign and to send
    it, character by character, which is most of the time of publishing a batch. Without it: botocore encodes it.
    """
    client.meta.events.register("before-call", _encode_form)


def refuse_truncated_answers(client: Any) -> None:
    """Raise ConnectionClosedError, which the SDK retries, for an answer that is shorter than its Content-Length.

    Private: the event ``before-parse`` with the answer as a dict. botocore does not notice a truncated answer, and
    makes an empty result of JSON that it cannot parse. Without it: such an answer is an error of parsing, or empty.
    """
    client.meta.events.register("before-parse", _check_length)


def _encode_form(params: dict[str, Any], **_: Any) -> None:
    form = params.get("body")
    if isinstance(form, dict):
        params["body"] = b"&".join(_quoted(name) + b"=" + _quoted(value) for name, value in form.items())


def _quoted(value: Any) -> bytes:
    return _NOT_IN_A_FORM.sub(lambda found: _PERCENT_ENCODED[found[0]], str(value).encode())


def _check_length(operation_model: Any, response_dict: Any, **_: Any) -> None:
    body, length = response_dict.get("body"), response_dict.get("headers", {}).get("content-length", "")
    has_body = isinstance(body, bytes) and operation_model.http.get("method") != "HEAD"
    if has_body and length.isdecimal() and len(body) < int(length):
        raise ConnectionClosedError(endpoint_url=operation_model.name)
