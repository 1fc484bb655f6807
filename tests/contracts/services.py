"""A declaration as a developer writes it, and changes of it."""

from __future__ import annotations

SERVICE = '''
from pydantic import BaseModel
from totoms import (
    APIConfiguration, APIEndpoint, MessageBusConfig, MessageBusHandlerConfig, MessageBusTopicConfig, Requires,
    TotoEvent, TotoMessage, TotoMicroserviceConfiguration, toto_delegate, toto_handler, upcast,
)


class Placed(TotoEvent, type="placed"):
    order: str
    note: str = ""


class Paid(TotoEvent, type="paid", version=2):
    order: str
    amount: int


@upcast(Paid, from_version=1)
def with_amount(data: dict) -> dict:
    return {**data, "amount": 0}


class NewOrder(BaseModel):
    item: str
    note: str = ""


class Order(BaseModel):
    id: str
    item: str


@toto_delegate
async def place(new: NewOrder, dry: bool = False) -> Order:
    """Place an order."""
    return Order(id="1", item=new.item)


@toto_delegate
async def read(order_number: str) -> Order:
    return Order(id=order_number, item="lamp")


@toto_handler
async def pay(message: TotoMessage[Paid]) -> None: ...


configuration = TotoMicroserviceConfiguration(
    service_name="orders",
    version="1.2.0",
    description="Takes orders <quickly> & well.",
    base_path="/orders",
    api_configuration=APIConfiguration(
        api_endpoints=[
            APIEndpoint(
                method="POST", path="/new", delegate=place, status_code=201, requires=Requires(roles={"buyer"})
            ),
            APIEndpoint(method="GET", path="/{order_number}", delegate=read, public=True),
        ]
    ),
    message_bus_configuration=MessageBusConfig(
        topics=[
            MessageBusTopicConfig(logical_name="orders", secret="orders-topic", publishes=[Placed]),
            MessageBusTopicConfig(logical_name="payments", secret="payments-topic"),
        ],
        message_handlers=[MessageBusHandlerConfig(handler=pay, topic="payments")],
    ),
)
'''
CONVERTED = SERVICE.replace('path="/{order_number}", delegate=read', 'path="/files/{order_number:path}", delegate=read')
"""The service with a parameter in a path that has a converter."""
CHANGES: dict[str, tuple[str, str, str]] = {
    # The text to replace, its replacement, and the expected line; "note" marks a change that is not breaking.
    "endpoint goes": (
        '            APIEndpoint(method="GET", path="/{order_number}", delegate=read, public=True),\n',
        "",
        "BREAKS  callers of GET /orders/{order_number}: the endpoint is gone",
    ),
    "path parameter is renamed": ("order_number", "number", ""),
    "new required field of a body": (
        "    item: str\n    note",
        "    item: str\n    price: int\n    note",
        "BREAKS  callers of POST /orders/new: body: price is required now",
    ),
    "field of a body becomes required": (
        '    item: str\n    note: str = ""',
        "    item: str\n    note: str",
        "BREAKS  callers of POST /orders/new: body: note is required now",
    ),
    "new optional query parameter": (
        "dry: bool = False",
        "dry: bool = False, fast: bool = False",
        "note    callers of POST /orders/new: query parameter fast is new, and optional",
    ),
    "query parameter becomes required": (
        "dry: bool = False",
        "dry: bool",
        "BREAKS  callers of POST /orders/new: query parameter dry is required now",
    ),
    "query parameter gets another type": (
        "dry: bool = False",
        "dry: int = 0",
        "BREAKS  callers of POST /orders/new: query parameter dry: no longer accepts boolean",
    ),
    "query parameter goes": (
        ", dry: bool = False",
        "",
        "note    callers of POST /orders/new: query parameter dry is ignored now",
    ),
    "field of a response goes": (
        "    id: str\n    item: str",
        "    id: str",
        "BREAKS  callers of GET /orders/{order_number}: response 200: item is no longer sent",
    ),
    "status changes": (
        "status_code=201",
        "status_code=202",
        "BREAKS  callers of POST /orders/new: response 201 is gone",
    ),
    "endpoint is closed": (
        ", public=True",
        "",
        "BREAKS  callers of GET /orders/{order_number}: a token is required now",
    ),
    "endpoint is opened": (
        ', requires=Requires(roles={"buyer"})',
        ", public=True",
        "note    callers of POST /orders/new: no token is required any more",
    ),
    "role is added": (
        '{"buyer"}',
        '{"buyer", "adult"}',
        "BREAKS  callers of POST /orders/new: callers who were allowed may be refused",
    ),
    "role is replaced by a choice": (
        'roles={"buyer"}',
        'any_of=[Requires(roles={"buyer"}), Requires(roles={"clerk"})]',
        "",
    ),
    "model is renamed": ("NewOrder", "OrderRequest", ""),
    "version of the service": ('version="1.2.0"', 'version="2.0.0"', ""),
    "published event loses a field": (
        '    order: str\n    note: str = ""',
        "    order: str",
        "BREAKS  services that handle placed on orders: version 1: note is no longer sent",
    ),
    "published event gets a field": ("    order: str\n    note", "    order: str\n    item: str\n    note", ""),
    "published event becomes nullable": (
        "    order: str\n    note",
        "    order: str | None\n    note",
        "BREAKS  services that handle placed on orders: version 1: order may be null now",
    ),
    "published event gets a version": (
        'type="placed"',
        'type="placed", version=2',
        "note    services that handle placed on orders: version 2 is published: they must understand it first",
    ),
    "event is not published any more": (
        ", publishes=[Placed]",
        "",
        "BREAKS  services that handle placed on orders: it is not published any more",
    ),
    "handled event needs more": (
        "    order: str\n    amount: int",
        "    order: str\n    amount: int\n    currency: str",
        "BREAKS  services that publish paid on payments: version 2: currency is required now",
    ),
    "handled event gets a version with an upcast": (
        "version=2):\n    order: str\n    amount: int\n",
        "version=3):\n    order: str\n    cents: int\n\n\n@upcast(Paid, from_version=2)\n"
        'def in_cents(data: dict) -> dict:\n    return {"order": data["order"], "cents": 100 * data["amount"]}\n',
        "note    services that publish paid on payments: version 3 is understood now",
    ),
    "upcast goes": (
        "@upcast(Paid, from_version=1)\n",
        "",
        "BREAKS  services that publish paid on payments: version 1 is not understood any more",
    ),
    "handler goes": (
        '        message_handlers=[MessageBusHandlerConfig(handler=pay, topic="payments")],\n',
        "",
        "BREAKS  services that publish paid on payments: nothing handles it any more",
    ),
    "event moves to another topic": (
        'handler=pay, topic="payments"',
        'handler=pay, topic="orders"',
        "BREAKS  services that publish paid on payments: nothing handles it any more",
    ),
}
