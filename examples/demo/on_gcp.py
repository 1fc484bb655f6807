"""Google Cloud on this machine, for the demo: servers that stand in for it, with what an operator would make.

Pub/Sub is Google's own emulator where that and Java are installed; everything else stands in from this repository's
tests.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from example import Needs
from servers import server

PROJECT = "demo-on-a-laptop"
STANDINS = Path(__file__).resolve().parents[2] / "tests" / "standins"


@contextlib.contextmanager
def gcp(needs: Needs) -> Iterator[None]:
    """Run the servers, with what `needs` names. When they end, everything is gone."""
    with contextlib.ExitStack() as running:
        os.environ |= {
            "PUBSUB_EMULATOR_HOST": running.enter_context(server(pubsub())),
            "STORAGE_EMULATOR_HOST": "http://" + running.enter_context(server(stand_in("gcp.gcs"))),
            "SECRET_MANAGER_EMULATOR_HOST": running.enter_context(server(stand_in("gcp.secret_manager"))),
        }
        os.environ["GCP_PID"] = PROJECT
        make(needs)
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
    return stand_in("gcp.pubsub")


def stand_in(script: str) -> list[str]:
    """Return the command that runs a stand-in."""
    return [sys.executable, str(STANDINS), script, "--port={port}"]


def make(needs: Needs) -> None:
    """Make topics, buckets and secrets with the SDK, as an operator would."""
    import grpc
    from google.cloud import storage
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport,
    )
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    files = storage.Client(project=PROJECT)
    for bucket in needs.buckets:
        files.create_bucket(bucket)
    with grpc.insecure_channel(os.environ["PUBSUB_EMULATOR_HOST"]) as channel:
        topics = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        for topic in needs.topics.values():
            topics.create_topic(name=f"projects/{PROJECT}/topics/{topic}")
    with grpc.insecure_channel(os.environ["SECRET_MANAGER_EMULATOR_HOST"]) as channel:
        store: Any = SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=channel))
        for name, value in {**needs.topics, **needs.random_secrets()}.items():
            store.create_secret(parent=f"projects/{PROJECT}", secret_id=name, secret={"replication": {"automatic": {}}})
            store.add_secret_version(parent=f"projects/{PROJECT}/secrets/{name}", payload={"data": value.encode()})
