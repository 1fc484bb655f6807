"""The service `orders`: takes orders, and cancels those for which the invoice is refused.

PUT /orders/{order_id}   place an order and publish `OrderPlaced`; for buyers only
GET /orders/{order_id}   read an order of one's own, with its status
"""

import os
from decimal import Decimal
from typing import Annotated, Literal

from fastapi import HTTPException, Path
from pydantic import BaseModel, Field

from totoms import (
    APIConfiguration,
    APIEndpoint,
    Bucket,
    CloudStorage,
    ExecutionContext,
    MessageBusConfig,
    MessageBusHandlerConfig,
    MessageBusTopicConfig,
    MessageDestination,
    OIDCIssuer,
    PreconditionFailed,
    Requires,
    Resources,
    TotoControllerConfig,
    TotoEvent,
    TotoMessage,
    TotoMicroservice,
    TotoMicroserviceConfiguration,
    UserContext,
    toto_delegate,
    toto_handler,
)

BUCKET = "orders"
OrderId = Annotated[str, Path(pattern="^[a-z0-9-]+$", max_length=64)]
Context = ExecutionContext[TotoControllerConfig]


class OrderPlaced(TotoEvent, type="orderPlaced"):
    """Version 1. `invoices` reads version 2 already; this service can change to it later."""

    order_id: str
    customer: str
    item: str
    total: Decimal


class InvoiceIssued(TotoEvent, type="invoiceIssued"):
    order_id: str


class InvoiceRefused(TotoEvent, type="invoiceRefused"):
    order_id: str
    reason: str


class NewOrder(BaseModel):
    item: str = Field(min_length=1, max_length=200)
    quantity: int = Field(ge=1, le=1000)
    price: Decimal = Field(gt=0, max_digits=10, decimal_places=2)


class StoredOrder(NewOrder):
    customer: str


class Outcome(BaseModel):
    """What became of an order. It is stored in a file of its own, so that no file is ever changed."""

    status: Literal["invoiced", "cancelled"]
    reason: str = ""


class Order(StoredOrder):
    order_id: str
    status: Literal["placed", "invoiced", "cancelled"]
    reason: str = ""


@toto_delegate
async def place_order(user_context: UserContext, exec_context: Context, order_id: OrderId, order: NewOrder) -> Order:
    """Store the order and publish it.

    The caller chooses the id. After an error it repeats the request: the order is stored once, and published again.
    """
    stored = StoredOrder(customer=customer_of(user_context), **order.model_dump())
    storage, path = exec_context.get_storage(BUCKET), f"orders/{order_id}.json"
    try:
        await storage.upload_bytes_async(stored.model_dump_json().encode(), path, if_absent=True)
    except PreconditionFailed:
        content = await storage.get_file_content_async(path)
        if content is None or StoredOrder.model_validate_json(content) != stored:
            raise HTTPException(409, "There is another order with this id.") from None
    event = OrderPlaced(
        order_id=order_id, customer=stored.customer, item=stored.item, total=stored.quantity * stored.price
    )
    await exec_context.message_bus.publish_message(MessageDestination(topic="orders"), event)
    return await with_status(storage, order_id, stored)


@toto_delegate
async def read_order(user_context: UserContext, exec_context: Context, order_id: OrderId) -> Order:
    storage = exec_context.get_storage(BUCKET)
    content = await storage.get_file_content_async(f"orders/{order_id}.json")
    stored = StoredOrder.model_validate_json(content) if content is not None else None
    if stored is None or stored.customer != user_context.subject:
        raise HTTPException(404, "You have no such order.")
    return await with_status(storage, order_id, stored)


async def with_status(storage: CloudStorage, order_id: str, stored: StoredOrder) -> Order:
    """Return an order with what has become of it."""
    outcome = await storage.get_file_content_async(f"outcomes/{order_id}.json")
    if outcome is None:
        return Order(order_id=order_id, status="placed", **stored.model_dump())
    return Order(order_id=order_id, **stored.model_dump(), **Outcome.model_validate_json(outcome).model_dump())


def customer_of(user_context: UserContext) -> str:
    """Return who places the order; a token of the issuer always has a subject."""
    assert user_context.subject is not None
    return user_context.subject


@toto_handler
async def complete_order(message: TotoMessage[InvoiceIssued], exec_context: Context) -> None:
    await conclude(exec_context, message.data.order_id, Outcome(status="invoiced"))


@toto_handler
async def cancel_order(message: TotoMessage[InvoiceRefused], exec_context: Context) -> None:
    """Compensate: without an invoice there is no order."""
    await conclude(exec_context, message.data.order_id, Outcome(status="cancelled", reason=message.data.reason))


async def conclude(exec_context: Context, order_id: str, outcome: Outcome) -> None:
    """Store the outcome of an order. A message that comes twice stores the same again."""
    content = outcome.model_dump_json().encode()
    await exec_context.get_storage(BUCKET).upload_bytes_async(content, f"outcomes/{order_id}.json")
    exec_context.logger.log(exec_context.cid, f"Order {order_id} is {outcome.status}")


def get_microservice_config() -> TotoMicroserviceConfiguration:
    """Declare the service. ISSUER is the address of the OpenID Connect issuer whose tokens are accepted."""
    issuer = os.environ["ISSUER"]
    return TotoMicroserviceConfiguration(
        service_name="orders",
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(
                    method="PUT",
                    path="/orders/{order_id}",
                    delegate=place_order,
                    requires=Requires(issuers={issuer}, roles={"buyer"}),
                ),
                APIEndpoint(
                    method="GET",
                    path="/orders/{order_id}",
                    delegate=read_order,
                    requires=Requires(issuers={issuer}),
                ),
            ],
            oidc_issuers=[OIDCIssuer(issuer=issuer, audience="shop", token_use="access", roles_claim="roles")],
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[
                MessageBusTopicConfig(logical_name="orders", secret="orders-topic", publishes=[OrderPlaced]),
                MessageBusTopicConfig(logical_name="invoices", secret="invoices-topic"),
            ],
            message_handlers=[
                MessageBusHandlerConfig(handler=complete_order, topic="invoices"),
                MessageBusHandlerConfig(handler=cancel_order, topic="invoices"),
            ],
        ),
        resources=Resources(buckets=[Bucket(BUCKET)]),
    )


if __name__ == "__main__":
    TotoMicroservice.run(get_microservice_config())
