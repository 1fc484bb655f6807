"""Look for what a declaration needs: secrets, topics and buckets."""

from __future__ import annotations

from totoms.checks.findings import Finding
from totoms.controller_config import AUDIENCE_SECRET, JWT_KEY_SECRET
from totoms.declaration.api import APIConfiguration
from totoms.declaration.service import TotoMicroserviceConfiguration
from totoms.environment import TotoEnvironment
from totoms.errors import AccessDenied, BackendError, NotFound
from totoms.loading import find_resources
from totoms.logging.logger import TotoLogger
from totoms.secrets.manager import SecretsManager

_PATIENCE = 5.0
"""Seconds for which a store that is unavailable is asked again."""


async def resource_findings(
    configuration: TotoMicroserviceConfiguration, environment: TotoEnvironment, *, closed: bool
) -> list[Finding]:
    """Return what is missing. Nothing is created, and no value is printed.

    Args:
        configuration: The declaration.
        environment: Where to look.
        closed: Whether there are endpoints that need a token.
    """
    logger = TotoLogger(configuration.service_name)
    problems = await find_resources(configuration, environment, logger, _PATIENCE)
    found = [_finding(problem) for problem in problems]
    api = configuration.api_configuration or APIConfiguration()
    if closed and not api.oidc_issuers and not await _has_a_verifier(environment):
        found.append(
            Finding(
                "problem",
                "resources",
                f"No token would be accepted: no secret {JWT_KEY_SECRET}, no {AUDIENCE_SECRET}, and no issuer.",
            )
        )
    return list(dict.fromkeys(found))


def _finding(problem: BackendError) -> Finding:
    if isinstance(problem, AccessDenied):
        return Finding("note", "resources", f"Cannot check whether it exists: {problem.message}")
    return Finding("problem", "resources", problem.message)


async def _has_a_verifier(environment: TotoEnvironment) -> bool:
    manager = SecretsManager(environment)
    for name in (JWT_KEY_SECRET, AUDIENCE_SECRET):
        try:
            await manager.get_secret_bytes_async(name)
        except NotFound:
            continue
        except BackendError:
            return True  # it may exist
        return True
    return False
