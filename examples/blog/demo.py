"""Run the blog for a newcomer: give it what it needs, print three lines to paste, start it. `make demo` calls this."""

import asyncio
import contextlib
import json
import os
import re
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from on_aws import aws
from on_azure import azure
from on_gcp import gcp

from service import get_microservice_config
from totoms import SecretsManager, TotoMicroservice
from totoms.auth.tokens import make_token

HERE = Path(__file__).resolve().parent


def backend() -> str:
    """Return the backend that is wanted; one that this demonstration knows nothing of is told in one line."""
    wanted = os.environ.get("BACKEND") or "local"
    if wanted not in PREPARATIONS:
        sys.exit(f"BACKEND={wanted}: this runs on {' and on '.join(sorted(PREPARATIONS))} only.")
    return wanted


def free_port() -> int:
    """Return the port to serve on; one that is in use or none is told in one line."""
    text = os.environ.get("PORT") or "8080"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        sys.exit("PORT must be a number from 1 to 65535.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(text)))
        except OSError as error:
            sys.exit(f"Port {text} cannot be had: {error.strerror}. Another one: make demo PORT=8081")
    return int(text)


@contextlib.contextmanager
def local() -> Iterator[None]:
    """Give the service its secret. On a laptop secrets stand in the environment, or in a file `.env`."""
    env = Path(".env")
    if not ("DIGEST_KEY" in os.environ or (env.exists() and "DIGEST_KEY=" in env.read_text())):
        with env.open("a") as file:
            file.write(f"DIGEST_KEY={secrets.token_hex(32)}\n")
        env.chmod(0o600)
    yield


@contextlib.contextmanager
def nats() -> Iterator[None]:
    """Run a nats-server of its own, with the topic, the bucket and the secrets that an operator would make."""
    from totoms_nats.configuration import NatsConfiguration
    from totoms_nats.testing.operator import Operator
    from totoms_nats.testing.server import NatsServer, find

    if find() is None:
        sys.exit("There is no nats-server on this machine: apt-get install nats-server")
    folder = Path(os.environ.get("TOTOMS_LOCAL_ROOT", ".totoms")) / "nats"
    folder.mkdir(parents=True, exist_ok=True)
    with NatsServer(folder) as server:
        os.environ["NATS_URL"] = server.url
        operator = Operator(NatsConfiguration())
        operator.make_topic("blog.posts")
        operator.make_bucket("blog")
        operator.make_secret("posts-topic", b"blog.posts")
        for name in ("digest-key", "jwt-signing-key"):
            operator.make_secret(name, secrets.token_hex(32).encode())
        yield


PREPARATIONS = {"local": local, "aws": aws, "gcp": gcp, "azure": azure, "nats": nats}
"""What each backend needs before the service starts."""


def lines_to_paste(port: int, token: str) -> list[str]:
    """Return three curl lines, each good on its own."""
    # A title of its own each time, so that the lines work on a blog that is there already.
    title = f"Hello at {datetime.now():%H:%M:%S}"
    slug = re.sub("[^a-z0-9]+", "-", title.lower())
    address = f"http://127.0.0.1:{port}/blog"
    caller = f"-H 'Authorization: Bearer {token}'"
    body = json.dumps({"title": title, "text": "My first post."})
    post = f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
    return [
        f"curl -s {caller} {post} {address}/posts",
        f"curl -s {caller} {address}/posts/{slug}",
        f"curl -s {caller} {address}/digest",
    ]


async def announce(microservice: TotoMicroservice, port: int) -> None:
    """Print the lines as soon as the service can answer them."""
    while microservice.state == "starting":
        await asyncio.sleep(0.01)
    key = await SecretsManager().get_secret_async("jwt-signing-key")
    token = make_token(key, "me@example.com", 24 * 3600, {"roles": ["author"]})
    print("\nStore a post, read it, and read the digest that a message handler wrote:\n")
    print("\n\n".join(lines_to_paste(port, token)))
    print(f"\nThe endpoints, to look at: http://127.0.0.1:{port}/docs    Ctrl-C stops the service.\n", flush=True)


async def serve(port: int) -> None:
    """Start the service, and return when it has stopped."""
    configuration = get_microservice_config()
    assert configuration.message_bus_configuration is not None
    configuration.message_bus_configuration.delivery = "pull"  # nobody outside could push to this machine
    microservice = await TotoMicroservice.init(configuration)
    announcing = asyncio.create_task(announce(microservice, port))
    await microservice.start(port=port, host="127.0.0.1")
    announcing.cancel()


def main() -> None:
    """Prepare the backend and run the service on it."""
    wanted = os.environ["HYPERSCALER"] = backend()
    port = free_port()
    with PREPARATIONS[wanted]():
        asyncio.run(serve(port))


if __name__ == "__main__":
    main()
