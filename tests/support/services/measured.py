"""A service in which everything happens that has a metric. The tests of docs/operations/metrics.md scrape it.

``python measured.py ISSUER_KEYS``: the address of the keys of an issuer.
"""

from __future__ import annotations

import asyncio
import sys
import time

from fastapi import Request

from totoms import (
    APIConfiguration,
    APIEndpoint,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    OIDCIssuer,
    RetryPolicy,
    TotoControllerConfig,
    TotoEvent,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
    toto_handler,
)
from totoms.messages import backlog_watch
from totoms.telemetry import state

backlog_watch.INTERVAL = 0.2  # type: ignore[misc]
ORDERS = MessageDestination(topic="orders")


class Placed(TotoEvent, type="placed"):
    """An order that is handled."""


class Refused(TotoEvent, type="refused"):
    """An order whose handler fails, so that it becomes a dead letter."""


class Blocking(TotoEvent, type="blocking"):
    """An order whose handler blocks the event loop for longer than its lease."""


class Waiting(TotoEvent, type="waiting"):
    """An order whose handler takes as long as the service runs."""


@toto_delegate
async def place(request: Request, user_context: UserContext, exec_context: ExecutionContext) -> dict[str, str]:
    """Publish an order of the kind that the path names."""
    kinds: dict[str, TotoEvent] = {
        "placed": Placed(),
        "refused": Refused(),
        "blocking": Blocking(),
        "waiting": Waiting(),
    }
    await exec_context.message_bus.publish_message(ORDERS, kinds[request.path_params["kind"]])
    # The only metric that takes a broker that is away for as long as a lease.
    if state.active is not None:
        state.active.instruments.ack_given_up("orders", "measured-orders", 1)
    return {}


@toto_handler
async def handle_placed(message: TotoMessage[Placed], exec_context: ExecutionContext[TotoControllerConfig]) -> None:
    """Handle an order."""


@toto_handler
async def handle_refused(message: TotoMessage[Refused], exec_context: ExecutionContext[TotoControllerConfig]) -> None:
    """Refuse an order."""
    raise ValueError("refused")


@toto_handler
async def handle_blocking(message: TotoMessage[Blocking], exec_context: ExecutionContext[TotoControllerConfig]) -> None:
    """Block the event loop, so that the lease is lost."""
    time.sleep(0.5)  # noqa: ASYNC251 - to block it
    await asyncio.sleep(0.3)


@toto_handler
async def handle_waiting(message: TotoMessage[Waiting], exec_context: ExecutionContext[TotoControllerConfig]) -> None:
    """Be in flight, and in the backlog."""
    await asyncio.Event().wait()


def configuration() -> TotoMicroserviceConfiguration:
    """Return the declaration."""
    issuer = OIDCIssuer(issuer="https://issuer.example", audience="measured", jwks_uri=sys.argv[1])
    return TotoMicroserviceConfiguration(
        service_name="measured",
        base_path="/measured",
        shutdown_grace=0.1,
        api_configuration=APIConfiguration(
            api_endpoints=[APIEndpoint(method="POST", path="/orders/{kind}", delegate=place)], oidc_issuers=[issuer]
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[MessageBusTopicConfig(logical_name="orders", secret="orders")],
            message_handlers=[
                MessageBusHandlerConfig(handler=handle_placed),
                MessageBusHandlerConfig(handler=handle_refused),
                MessageBusHandlerConfig(handler=handle_blocking),
                MessageBusHandlerConfig(handler=handle_waiting),
            ],
            retry=RetryPolicy(max_attempts=1),
            lease=0.3,
        ),
    )


if __name__ == "__main__":
    TotoMicroservice.run(configuration())
