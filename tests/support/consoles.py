"""A service with its console, in a process of its own, and clients for both."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import httpx

from support.processes import DEADLINE, Process

SERVICE = """
from totoms import (
    APIConfiguration, APIEndpoint, Bucket, ExecutionContext, MessageBusConfig, MessageBusHandlerConfig,
    MessageBusTopicConfig, MessageDestination, NonRetryableError, Requires, Resources, TotoEvent, TotoMessage,
    TotoMicroserviceConfiguration, toto_delegate, toto_handler,
)


class Placed(TotoEvent, type="placed"):
    item: str


@toto_delegate
async def place(item: str, exec_context: ExecutionContext) -> str:
    await exec_context.get_storage("shop-files").upload_bytes_async(item.encode(), f"orders/{item[:20]}.txt")
    await exec_context.message_bus.publish_message(MessageDestination(topic="orders"), Placed(item=item))
    exec_context.logger.log(exec_context.cid, f"Placed {item}")
    return item


@toto_delegate
async def read(number: int) -> dict[str, int]:
    return {"number": number}


@toto_handler
async def ship(message: TotoMessage[Placed], exec_context: ExecutionContext) -> None:
    if message.data.item.startswith("fail"):
        raise NonRetryableError(f"{message.data.item} is sold out")


configuration = TotoMicroserviceConfiguration(
    service_name="NAME",
    api_configuration=APIConfiguration(
        api_endpoints=[
            APIEndpoint(method="POST", path="/place", delegate=place, requires=Requires(roles={"buyer"})),
            APIEndpoint(method="GET", path="/orders/{number}", delegate=read),
        ]
    ),
    message_bus_configuration=MessageBusConfig(
        topics=[MessageBusTopicConfig(logical_name="orders", secret="orders-topic", publishes=[Placed])],
        message_handlers=[MessageBusHandlerConfig(handler=ship, topic="orders")],
    ),
    resources=Resources(buckets=[Bucket("shop-files")], secrets=["shop-key"]),
)
"""


class WithConsole(Process):
    """A service started with `run --console`.

    Args:
        folder: Its working directory; two services in one folder share a console.
        options: Further options of the command.
        name: The name of the service.
        variables: Further variables.
    """

    def __init__(self, folder: Path, *options: str, name: str = "shop", **variables: str) -> None:
        module = name.replace("-", "_")
        (folder / f"{module}.py").write_text(SERVICE.replace("NAME", name))
        arguments = ["-m", "totoms", "run", f"{module}:configuration", "--port=0", "--console", *options]
        env = {"SHOP_KEY": "the-canary-value", **variables}
        super().__init__(*arguments, root=str(folder / "root"), env=env, cwd=folder)

    @property
    def address(self) -> str:
        """What was printed: the address with the token."""
        return self.expect(r"Console: (\S+)").group(1)

    @property
    def origin(self) -> str:
        """The console's origin."""
        return self.address.partition("/?")[0]

    @property
    def token(self) -> str:
        """The token."""
        return self.address.partition("token=")[2]

    def browser(self) -> httpx.Client:
        """Return a client that has opened the printed address, as a browser would."""
        client = httpx.Client(base_url=self.origin, timeout=DEADLINE, follow_redirects=True, trust_env=False)
        assert client.get(self.address).status_code == 200
        client.headers["origin"] = self.origin
        return client

    def place(self, client: httpx.Client, item: str) -> str:
        """Place an order by trying the endpoint, and return the page."""
        form = {
            "service": self.name_of_service,
            "method": "POST",
            "path": "/place",
            "query": f"item={quote(item)}",
            "user": "ann",
        }
        answer = client.post("/endpoints/try", data=form)
        assert answer.status_code == 200, answer.text
        return answer.text

    @property
    def name_of_service(self) -> str:
        """The name of the service."""
        return re.search(r'"service":"([^"]+)"', self.output).group(1)  # type: ignore[union-attr]
