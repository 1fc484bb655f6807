"""Google Cloud on this machine, for the demonstration: servers that stand in for it, with what an operator would make.

Pub/Sub is Google's own emulator where that and Java are installed; everything else stands in from this repository's
tests.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROJECT = "blog-on-a-laptop"
STANDINS = Path(__file__).resolve().parents[2] / "tests" / "standins"
PATIENCE_SECONDS = 60.0
KEEPER = """
import subprocess, sys, threading
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
threading.Thread(target=lambda: (sys.stdin.read(), server.kill()), daemon=True).start()
sys.exit(server.wait())
"""
"""Runs a server until its own input ends, which is when the demonstration does, though it be killed."""


@contextlib.contextmanager
def gcp() -> Iterator[None]:
    """Run the servers, with the topic, the bucket and the secrets of the blog. With their end everything is gone."""
    with contextlib.ExitStack() as running:
        os.environ |= {
            "PUBSUB_EMULATOR_HOST": running.enter_context(server(pubsub())),
            "STORAGE_EMULATOR_HOST": "http://" + running.enter_context(server(stand_in("gcs.py"))),
            "SECRET_MANAGER_EMULATOR_HOST": running.enter_context(server(stand_in("secret_manager.py"))),
        }
        os.environ["GCP_PID"] = PROJECT
        make_what_the_blog_needs()
        yield


def pubsub() -> list[str]:
    """Return the command that runs Pub/Sub."""
    java, gcloud = shutil.which("java"), shutil.which("gcloud")
    if java and gcloud:
        folder = Path(gcloud).resolve().parents[1] / "platform" / "pubsub-emulator" / "lib"
        for jar in sorted(folder.glob("cloud-pubsub-emulator-*-all.jar")):
            print("Pub/Sub: Google's emulator.")
            return [java, "-jar", str(jar), "--host=127.0.0.1", "--port={port}"]
    print("Pub/Sub: a stand-in, because Google's emulator, or the Java that it needs, is not on this machine.")
    return stand_in("pubsub.py")


def stand_in(script: str) -> list[str]:
    """Return the command that runs a stand-in."""
    return [sys.executable, str(STANDINS / script), "--port={port}"]


def make_what_the_blog_needs() -> None:
    """Make a topic, a bucket and secrets, with the SDK, as an operator would."""
    import grpc
    from google.cloud import storage
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport,
    )
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    storage.Client(project=PROJECT).create_bucket("blog")
    with grpc.insecure_channel(os.environ["PUBSUB_EMULATOR_HOST"]) as channel:
        topics = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        topics.create_topic(name=f"projects/{PROJECT}/topics/blog-posts")
    values = {"posts-topic": "blog-posts"} | {name: secrets.token_hex(32) for name in ("digest-key", "jwt-signing-key")}
    with grpc.insecure_channel(os.environ["SECRET_MANAGER_EMULATOR_HOST"]) as channel:
        store: Any = SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=channel))
        for name, value in values.items():
            store.create_secret(parent=f"projects/{PROJECT}", secret_id=name, secret={"replication": {"automatic": {}}})
            store.add_secret_version(parent=f"projects/{PROJECT}/secrets/{name}", payload={"data": value.encode()})


@contextlib.contextmanager
def server(command: list[str]) -> Iterator[str]:
    """Run a server on a free port and give its address; ``{port}`` in the command is that port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # In a session of its own: Ctrl-C is for the service, which drains while its broker is still there.
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, *(word.format(port=port) for word in command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(port, process)
        yield f"127.0.0.1:{port}"
    finally:
        process.communicate(timeout=PATIENCE_SECONDS)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    sys.exit(f"It did not start: {' '.join(map(str, process.args[3:]))}")  # type: ignore[index]
