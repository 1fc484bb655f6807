"""Signing URLs: with the service account's own key, or by Google with a key that it keeps, as on Cloud Run and GKE."""

from __future__ import annotations

import base64
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import quote

import requests
from google.auth import exceptions as auth
from google.auth.credentials import Credentials, Signing
from google.auth.transport.requests import AuthorizedSession, Request

from totoms.errors import AccessDenied, Unsupported
from totoms_gcp import clients
from totoms_gcp.private_api import is_signing_denied

SIGN_BLOB: Final = "https://iamcredentials.{domain}/v1/projects/-/serviceAccounts/{email}:signBlob"
"""https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/signBlob"""
_TOKEN_SECONDS: Final = 10
_UNKNOWN: Final = ("", "default")
"""The account of a machine's credentials before their first token."""


class GoogleSigner(Signing):
    """Signs as a service account whose key Google keeps. The account must be allowed to sign as itself.

    Args:
        session: Has the account's credentials.
        email: The account.
        domain: Google's own.
    """

    def __init__(self, session: AuthorizedSession, email: str, domain: str) -> None:
        self._session, self._email = session, email
        self._address = SIGN_BLOB.format(domain=domain, email=quote(email))

    @property
    def signer_email(self) -> str:
        """The account."""
        return self._email

    @property
    def signer(self) -> GoogleSigner:
        """Itself."""
        return self

    def sign_bytes(self, message: bytes) -> bytes:
        """Return Google's signature of `message`."""
        content = {"payload": base64.b64encode(message).decode()}

        def ask() -> bytes:
            answer = clients.check(self._session.post(self._address, json=content, timeout=clients.TIMEOUT), 200)
            return base64.b64decode(answer.json()["signedBlob"])

        signature: bytes = clients.RETRY(ask)()
        return signature


def sign_url(
    files: clients.Files, blob: Any, method: Literal["GET", "PUT"], expires_in: int, content_type: str | None
) -> str:
    """Return a URL, signed in version 4. It may ask Google for a token and a signature: call it in a thread.

    Raises:
        Unsupported: The credentials cannot sign, as those of a person.
        AccessDenied: They may not sign.
        google.auth.exceptions.GoogleAuthError: There are no credentials, or no token.
    """
    signer = _signer(blob.name)
    try:
        url: str = blob.generate_signed_url(
            version="v4",
            expiration=timedelta(seconds=expires_in),
            method=method,
            credentials=signer,
            content_type=content_type,
            client=files.client,
            api_access_endpoint=files.address,
        )
    except auth.TransportError as error:
        if is_signing_denied(error):
            raise AccessDenied(f"{signer.signer_email} may not sign URLs.", resource=blob.name) from error
        raise
    return url


def _signer(resource: str) -> Signing:
    credentials = clients.signer()
    if isinstance(credentials, Signing):
        return credentials
    if _email(credentials) in _UNKNOWN:
        with requests.Session() as session:
            credentials.refresh(partial(Request(session), timeout=_TOKEN_SECONDS))
    email = _email(credentials)
    if email in _UNKNOWN:
        kind = type(credentials).__name__
        raise Unsupported(f"{kind} cannot sign URLs: use a service account.", resource=resource)
    return GoogleSigner(clients.iam(), email, str(credentials.universe_domain))


def _email(credentials: Credentials) -> str:
    return getattr(credentials, "service_account_email", None) or ""
