"""Who pushes: Event Grid signs nothing, so it shows a secret that was agreed on, or a token of Entra ID.

The secret is a header that the event subscription adds to each request, marked as secret
(https://learn.microsoft.com/azure/event-grid/delivery-properties). The token is one that Event Grid gets as itself for
the service's own application (https://learn.microsoft.com/azure/event-grid/secure-webhook-delivery).
"""

from __future__ import annotations

import hmac
import re
import time
from typing import Final

from totoms.envelope import PushRequest
from totoms.errors import ConfigurationError, Forbidden, Unauthorized
from totoms.tokens import parse_token
from totoms.verifiers import OIDCTokens
from totoms_azure.configuration import AzureConfiguration

SECRET_HEADER: Final = "x-totoms-push-secret"
EVENT_GRID: Final = "4962773b-9cdb-44cf-a8bf-237846a00ab7"
"""The id of the application Microsoft.EventGrid, the same in every tenant."""
KEYS: Final = "https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys"
_TENANT: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class PushVerifier:
    """Says whether a request comes from Event Grid.

    Tokens of both versions are taken; which it is depends on the application that they are for. They differ in issuer
    and in the claim with the id of who asked for the token
    (https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference).

    Args:
        settings: The secret, the audience, the tenant.
        keys_uri: Where Entra ID publishes its keys, with ``{tenant}`` for the tenant's id.

    Raises:
        ConfigurationError: The tenant is not named by its id, so no token's issuer could be right.
    """

    def __init__(self, settings: AzureConfiguration, keys_uri: str = KEYS) -> None:
        self._secret = settings.push_secret.get_secret_value().encode()
        self._applications: dict[str, str] = {}
        self._tokens: OIDCTokens | None = None
        if settings.push_audience and settings.push_tenant:
            tenant = settings.push_tenant.lower()
            if not _TENANT.fullmatch(tenant):
                raise ConfigurationError(
                    "AzureConfiguration: push_tenant (AZURE_PUSH_TENANT_ID) must be the id of a tenant, a GUID."
                )
            self._applications = {
                f"https://sts.windows.net/{tenant}/": "appid",
                f"https://login.microsoftonline.com/{tenant}/v2.0": "azp",
            }
            # Whose token it is has been checked by then; "iss" is a claim that both versions have.
            self._tokens = OIDCTokens(
                tuple(self._applications), settings.push_audience, keys_uri.format(tenant=tenant),
                user_claim="iss", require_email_verified=False, provider="entra",
            )  # fmt: skip

    @property
    def accepts(self) -> bool:
        """Whether there is anything by which Event Grid could show who it is."""
        return bool(self._secret or self._tokens)

    async def verify(self, request: PushRequest) -> None:
        """Return if it does: by the secret or by a token, and with none that is wrong.

        Raises:
            Unauthorized, Forbidden: It does not. Nothing was fetched for its sake but, seldom, Entra ID's keys.
            Undecidable: The keys cannot be had now.
        """
        if not self.accepts:
            raise Forbidden(
                "Pushes are not accepted: set AZURE_PUSH_SECRET, or AZURE_PUSH_AUDIENCE and AZURE_PUSH_TENANT_ID."
            )
        secret = request.headers.get(SECRET_HEADER) if self._secret else None
        authorization = request.headers.get("authorization") if self._tokens else None
        if secret is None and authorization is None:
            raise Unauthorized("The push has neither a secret nor a token.")
        if secret is not None and not hmac.compare_digest(secret.encode("latin-1", "backslashreplace"), self._secret):
            raise Unauthorized("The secret of the push is wrong.")
        if authorization is not None:
            await self._verify_token(authorization)

    async def _verify_token(self, authorization: str) -> None:
        assert self._tokens is not None
        scheme, _, credentials = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthorized("The push has no token.")
        token = parse_token(credentials.strip().encode("utf-8", "replace"))
        issuer = token.claims.get("iss")
        application = self._applications.get(issuer) if isinstance(issuer, str) else None
        if application is None:
            raise Unauthorized("The token has another issuer.")
        # Any application of the tenant may get a token for this audience.
        if token.claims.get(application) != EVENT_GRID:
            raise Forbidden("The push comes from another application than Event Grid.")
        if isinstance(token.claims.get("aud"), list):
            raise Unauthorized("The token has another audience.")
        await self._tokens.verify(token, time.time())
