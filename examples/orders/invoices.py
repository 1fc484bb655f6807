"""The service `invoices`: writes an invoice for each order, or refuses it.

GET /invoices/{order_id}   download the text of an invoice; for its customer and for accountants
PUT /invoices/{order_id}   upload another text; for accountants only
"""

import os
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

from fastapi import HTTPException, Path, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

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
    ValidationError,
    toto_delegate,
    toto_handler,
    upcast,
)

BUCKET = "invoices"
LIMIT = Decimal(1000)
"""The highest amount for which an invoice is written."""
OrderId = Annotated[str, Path(pattern="^[a-z0-9-]+$", max_length=64)]
Context = ExecutionContext[TotoControllerConfig]


class OrderPlaced(TotoEvent, type="orderPlaced", version=2):
    """An order. Version 1 had a `total` in euros."""

    order_id: str
    customer: str
    item: str
    amount: Decimal
    currency: str


@upcast(OrderPlaced, from_version=1)
def with_currency(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "amount": data["total"], "currency": "EUR"}


class InvoiceIssued(TotoEvent, type="invoiceIssued"):
    order_id: str


class InvoiceRefused(TotoEvent, type="invoiceRefused"):
    order_id: str
    reason: str


class Owner(BaseModel):
    """The customer whose invoice it is."""

    customer: str


@toto_handler
async def write_invoice(message: TotoMessage[OrderPlaced], exec_context: Context) -> None:
    """Write the invoice and publish that it exists, or publish why not; a message that comes twice does no harm."""
    order = message.data
    if order.amount > LIMIT:
        reason = f"{order.amount} {order.currency} is more than {LIMIT}."
        answer: TotoEvent = InvoiceRefused(order_id=order.order_id, reason=reason)
    else:
        storage = exec_context.get_storage(BUCKET)
        text = f"Invoice for order {order.order_id}\n{order.item}: {order.amount} {order.currency}\n"
        await create(storage, f"texts/{order.order_id}.txt", text)  # first: an invoice with an owner always has a text
        await create(storage, f"owners/{order.order_id}.json", Owner(customer=order.customer).model_dump_json())
        answer = InvoiceIssued(order_id=order.order_id)
    await exec_context.message_bus.publish_message(MessageDestination(topic="invoices"), answer)
    exec_context.logger.log(exec_context.cid, f"{type(answer).__name__} for order {order.order_id}")


async def create(storage: CloudStorage, path: str, text: str) -> None:
    """Store a file, unless there is one: an accountant may have changed it since."""
    try:
        await storage.upload_bytes_async(text.encode(), path, if_absent=True)
    except PreconditionFailed:
        return


@toto_delegate
async def download(user_context: UserContext, exec_context: Context, order_id: OrderId) -> StreamingResponse:
    storage = exec_context.get_storage(BUCKET)
    owner = await owner_of(storage, order_id)
    if owner != user_context.subject and "accountant" not in user_context.roles:
        raise HTTPException(404, "You have no such invoice.")
    chunks: AsyncIterator[bytes] = await storage.stream_file_async(f"texts/{order_id}.txt")
    headers = {"Content-Disposition": f'attachment; filename="{order_id}.txt"', "X-Content-Type-Options": "nosniff"}
    return StreamingResponse(chunks, media_type="text/plain; charset=utf-8", headers=headers)


@toto_delegate
async def upload(request: Request, exec_context: Context, order_id: OrderId) -> dict[str, int]:
    storage = exec_context.get_storage(BUCKET)
    await owner_of(storage, order_id)
    content = await request.body()  # at most max_body_bytes
    try:
        content.decode()
    except UnicodeDecodeError:
        raise ValidationError("An invoice is a text in UTF-8.") from None
    await storage.upload_bytes_async(content, f"texts/{order_id}.txt")
    return {"bytes": len(content)}


async def owner_of(storage: CloudStorage, order_id: str) -> str:
    """Return the customer of an invoice.

    Raises:
        HTTPException: There is no such invoice.
    """
    content = await storage.get_file_content_async(f"owners/{order_id}.json")
    if content is None:
        raise HTTPException(404, "You have no such invoice.")
    return Owner.model_validate_json(content).customer


def get_microservice_config() -> TotoMicroserviceConfiguration:
    """Declare the service. ISSUER is the address of the OpenID Connect issuer whose tokens are accepted."""
    issuer = os.environ["ISSUER"]
    path = "/invoices/{order_id}"
    return TotoMicroserviceConfiguration(
        service_name="invoices",
        api_configuration=APIConfiguration(
            api_endpoints=[
                APIEndpoint(method="GET", path=path, delegate=download, requires=Requires(issuers={issuer})),
                APIEndpoint(
                    method="PUT",
                    path=path,
                    delegate=upload,
                    requires=Requires(issuers={issuer}, roles={"accountant"}),
                ),
            ],
            oidc_issuers=[OIDCIssuer(issuer=issuer, audience="shop", token_use="access", roles_claim="roles")],
            max_body_bytes=64 * 1024,
        ),
        message_bus_configuration=MessageBusConfig(
            topics=[
                MessageBusTopicConfig(logical_name="orders", secret="orders-topic"),
                MessageBusTopicConfig(
                    logical_name="invoices", secret="invoices-topic", publishes=[InvoiceIssued, InvoiceRefused]
                ),
            ],
            message_handlers=[MessageBusHandlerConfig(handler=write_invoice, topic="orders")],
        ),
        resources=Resources(buckets=[Bucket(BUCKET)]),
    )


if __name__ == "__main__":
    TotoMicroservice.run(get_microservice_config())
