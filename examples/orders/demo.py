"""The orders for `make demo`: an issuer and the services `orders` and `invoices`, with lines to paste."""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import example
from issuer import Issuer
from orders import get_microservice_config
from servers import server

from totoms import TotoMicroserviceConfiguration

INVOICES = Path(__file__).resolve().parent / "invoices.py"
SERVE = INVOICES.parents[1] / "demo" / "serve.py"


class Example(example.Example):
    """The orders and their invoices."""

    needs = example.Needs(
        topics={"orders-topic": "shop-orders", "invoices-topic": "shop-invoices"}, buckets=["orders", "invoices"]
    )

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Run the issuer and the service `invoices`."""
        with Issuer() as self.issuer:
            os.environ["ISSUER"] = self.issuer.url
            with server([sys.executable, str(SERVE), str(INVOICES), "{port}"], is_service=True) as address:
                self.invoices = f"http://{address}"
                yield

    def configuration(self) -> TotoMicroserviceConfiguration:
        """See `example.Example`."""
        return get_microservice_config()

    async def announcement(self, address: str) -> str:
        """Return curl lines: an order, its invoice, another text for it, and an order that is cancelled."""
        ann, eve = (
            f"-H 'Authorization: Bearer {self.issuer.token(subject, [role])}'"
            for subject, role in (("ann", "buyer"), ("eve", "accountant"))
        )

        def order(name: str, price: str) -> str:
            body = json.dumps({"item": "lamp", "quantity": 2, "price": price})
            json_body = f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
            return f"curl -s -X PUT {ann} {json_body} {address}/orders/{name}"

        text = f"-H 'Content-Type: text/plain' -d {shlex.quote('Two lamps, as agreed.')}"
        lines = [
            "Ann, a buyer, places an order; it is invoiced, and she downloads the invoice:",
            order("lamps", "19.90"),
            f"curl -s {ann} {address}/orders/lamps",
            f"curl -s {ann} {self.invoices}/invoices/lamps",
            "Eve, an accountant, uploads another text:",
            f"curl -s -X PUT {eve} {text} {self.invoices}/invoices/lamps",
            "Ann orders more than may be invoiced; the order is cancelled:",
            order("chandeliers", "1900"),
            f"curl -s {ann} {address}/orders/chandeliers",
        ]
        return "\n\n".join(lines)
