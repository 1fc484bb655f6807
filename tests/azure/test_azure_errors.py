"""Errors of Azure and of the network become errors of totoms: each case of the table, with the SDK's own errors."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core import exceptions as http
from azure.identity import CredentialUnavailableError

from totoms.errors import AccessDenied, BackendError, NotFound, PreconditionFailed, Unavailable
from totoms_azure.errors import mapped_errors, translate


def with_status(status: int, kind: Any = http.HttpResponseError) -> http.HttpResponseError:
    class Answer:
        status_code, reason, headers = status, "the-canary", {}

        def text(self, *_: object) -> str:
            return "the-canary"

        body = text

    made: http.HttpResponseError = kind(message="the-canary", response=Answer())
    return made


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        *[(with_status(status), AccessDenied) for status in (401, 403)],
        *[(with_status(status), Unavailable) for status in (408, 429, 500, 502, 503, 504)],
        *[(with_status(status), BackendError) for status in (400, 409, 410, 418)],
        (with_status(404), NotFound),
        (with_status(412), PreconditionFailed),
        (with_status(404, http.ResourceNotFoundError), NotFound),
        (with_status(412, http.ResourceModifiedError), PreconditionFailed),
        (with_status(403, http.ClientAuthenticationError), AccessDenied),
        (http.HttpResponseError("the-canary"), Unavailable),
        (http.ResourceNotFoundError("the-canary"), NotFound),
        (http.ClientAuthenticationError("the-canary"), AccessDenied),
        (CredentialUnavailableError("x"), AccessDenied),
        (caused(http.ClientAuthenticationError("x"), http.ServiceRequestError("x")), Unavailable),
        (caused(CredentialUnavailableError("x"), http.ServiceResponseError("x")), Unavailable),
        (http.ServiceRequestError("the-canary"), Unavailable),
        (http.ServiceRequestTimeoutError("x"), Unavailable),
        (http.ServiceResponseError("the-canary"), Unavailable),
        (http.ServiceResponseTimeoutError("x"), Unavailable),
        (http.IncompleteReadError("the-canary"), Unavailable),
        (TimeoutError(), Unavailable),
        (ConnectionResetError("the-canary"), Unavailable),
        (RuntimeError("the-canary"), BackendError),
        (ValueError("the-canary"), BackendError),
    ],
    ids=repr,
)
def test_error_of_the_sdk_is_mapped(error: Exception, expected: type[BackendError]) -> None:
    raised = translate(error, "the topic", "a-topic")

    assert type(raised) is expected
    assert raised.resource == "a-topic"
    assert "a-topic" in str(raised)
    assert type(error).__name__ in str(raised)
    assert "the-canary" not in repr(raised)


def test_error_of_ours_is_passed_on() -> None:
    error = NotFound("x", resource="y")

    assert translate(error, "the topic", "a-topic") is error
    with pytest.raises(NotFound) as caught, mapped_errors("the topic", "a-topic"):
        raise error
    assert caught.value is error


def test_original_error_is_the_cause_of_what_is_raised() -> None:
    error = http.ServiceRequestError("x")

    with pytest.raises(Unavailable) as caught, mapped_errors("the topic", "a-topic"):
        raise error
    assert caught.value.__cause__ is error
