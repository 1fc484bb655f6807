"""Run an example: prepare the backend, start the service, print lines to paste. `make demo` calls this."""

import asyncio
import importlib
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from example import Example
from on_aws import aws
from on_azure import azure
from on_gcp import gcp
from on_local import local
from on_nats import nats
from serve import serve

EXAMPLES = ("blog", "orders")
BACKENDS = {"local": local, "aws": aws, "gcp": gcp, "azure": azure, "nats": nats}
"""What each backend needs before a service starts."""


def chosen(variable: str, default: str, known: Iterable[str]) -> str:
    """Return the value of a variable, or end with a line that lists the possible values."""
    value = os.environ.get(variable) or default
    if value not in known:
        sys.exit(f"{variable}={value} is not known: choose one of {', '.join(sorted(known))}.")
    return value


def free_port() -> int:
    """Return the port to serve on, or end with a line that says why it cannot be used."""
    text = os.environ.get("PORT") or "8080"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        sys.exit("PORT must be a number from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            sys.exit(f"Port {text} is not available: {error.strerror}. Choose another one: make demo PORT=8081")
    return int(text)


def load(name: str) -> Example:
    """Import the demo of an example."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / name))
    example: Example = importlib.import_module("demo").Example()
    return example


def main() -> None:
    """Prepare the backend and run the example on it."""
    name = chosen("EXAMPLE", "blog", EXAMPLES)
    backend = os.environ["HYPERSCALER"] = chosen("BACKEND", "local", BACKENDS)
    port = free_port()
    example = load(name)

    async def announce(console: str) -> None:
        print(f"\n{await example.announcement(f'http://127.0.0.1:{port}')}")
        print(f"\nThe console, to see what happens: {console}")
        print(f"\nThe endpoints, to look at: http://127.0.0.1:{port}/docs    Ctrl-C stops the service.\n", flush=True)

    with BACKENDS[backend](example.needs), example.beside():
        asyncio.run(serve(example.configuration(), port, announce))


if __name__ == "__main__":
    main()
