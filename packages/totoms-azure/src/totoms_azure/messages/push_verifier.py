"""Verifies that a push comes from Event Grid, by a shared secret or a token of Entra ID.

Event Grid signs nothing. The secret is a header that the event subscription adds to each request, marked as secret
(https://learn.microsoft.com/azure/event-grid/delivery-properties). The token is one that Event Grid gets as itself for
the service's own application (https://learn.microsoft.com/azure/event-grid/secure-webhook-delivery).
"""

from __future__ import annotations

import hmac
import re
import time
from typing import Final

from totoms.errors import ConfigurationError, Forbidden, Unauthorized
from totoms.plugin import OIDCTokens, PushRequest, parse_token
from totoms_azure.configuration import AzureConfiguration, current_cloud

SECRET_HEADER: Final = "x-totoms-push-secret"
_TENANT: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class PushVerifier:
    """Verifies requests of Event Grid.

    Tokens of both versions are accepted; the version depends on the application that they are for. They differ in the
    issuer and in the claim with the id of the application that requested the token
    (https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference).

    Args:
        settings: The secret, the audience, the tenant.
        keys_uri: Where Entra ID publishes its keys, with ``{tenant}`` for the tenant's id; empty for the cloud's own.

    Raises:
        ConfigurationError: The tenant is not an id, so no issuer could match; or its cloud is one for which the id of
            Event Grid's application is not published.
    """

    def __init__(self, settings: AzureConfiguration, keys_uri: str = "") -> None:
        cloud = current_cloud()
        self._event_grid = cloud.event_grid
        self._secret = settings.push_secret.get_secret_value().encode()
        self._application_claims: dict[str, str] = {}
        self._tokens: OIDCTokens | None = None
        if settings.push_audience and settings.push_tenant:
            tenant = settings.push_tenant.lower()
            if not _TENANT.fullmatch(tenant):
                raise ConfigurationError(
                    "AzureConfiguration: push_tenant (AZURE_PUSH_TENANT_ID) must be the id of a tenant, a GUID."
                )
            if not self._event_grid:  # without it every application of the tenant could push
                raise ConfigurationError(
                    "AzureConfiguration: push_audience (AZURE_PUSH_AUDIENCE) cannot be used in Azure's cloud in China: "
                    "the id of Event Grid's application there is not published. Set push_secret (AZURE_PUSH_SECRET)."
                )
            self._application_claims = {
                cloud.issuer.format(tenant=tenant): "appid",
                cloud.second_issuer.format(tenant=tenant): "azp",
            }
            self._tokens = OIDCTokens(
                tuple(self._application_claims),
                settings.push_audience,
                (keys_uri or cloud.keys).format(tenant=tenant),
                user_claim="iss",  # any claim that both versions have: the application is checked before
                require_email_verified=False,
                use="any",  # access tokens, which Entra does not mark in every cloud; the application is checked
                provider="entra",
            )

    @property
    def accepts(self) -> bool:
        """Whether any request could be verified."""
        return bool(self._secret or self._tokens)

    async def verify(self, request: PushRequest) -> None:
        """Verify the secret or the token of a request; if it has both, both must be right.

        Raises:
            Unauthorized, Forbidden: It does not come from Event Grid. At most Entra ID's keys were fetched, and seldom.
            Undecidable: The keys cannot be fetched.
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
        claim = self._application_claims.get(issuer) if isinstance(issuer, str) else None
        if claim is None:
            raise Unauthorized("The token has another issuer.")
        # Any application of the tenant may get a token for this audience.
        if token.claims.get(claim) != self._event_grid:
            raise Forbidden("The push comes from another application than Event Grid.")
        if isinstance(token.claims.get("aud"), list):
            raise Unauthorized("The token has another audience.")
        await self._tokens.verify(token, time.time())
