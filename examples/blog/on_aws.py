"""AWS on this machine, for the demonstration: a ministack, with what an operator would make in an account."""

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

REGION = "eu-north-1"
PATIENCE_SECONDS = 30.0


@contextlib.contextmanager
def aws() -> Iterator[None]:
    """Run a ministack, with the topic, the bucket and the secrets of the blog. With its end everything is gone."""
    with ministack() as address:
        # The SDK's own variables: on AWS there would be a role, and no endpoint.
        os.environ |= {
            "AWS_ENDPOINT_URL": address, "AWS_REGION": REGION, "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo", "ENVIRONMENT": "dev",
        }  # fmt: skip
        make_what_the_blog_needs()
        yield


def make_what_the_blog_needs() -> None:
    """Make a topic, a bucket, and secrets named ``{environment}/{name}``."""
    import boto3

    def client(service: str) -> Any:
        return boto3.client(service, region_name=REGION)

    topic = client("sns").create_topic(Name="blog-posts")["TopicArn"]
    client("s3").create_bucket(Bucket="blog", CreateBucketConfiguration={"LocationConstraint": REGION})
    values = {"posts-topic": topic, "digest-key": secrets.token_hex(32), "jwt-signing-key": secrets.token_hex(32)}
    for name, value in values.items():
        client("secretsmanager").create_secret(Name=f"dev/{name}", SecretString=value)


@contextlib.contextmanager
def ministack() -> Iterator[str]:
    """Run a ministack on a free port and give its address."""
    beside = Path(sys.executable).parent / "ministack"
    program = str(beside) if beside.exists() else shutil.which("ministack")
    if program is None:
        sys.exit("There is no ministack on this machine: pip install ministack")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "MINISTACK_HOST": "127.0.0.1",
        "SERVICES": "sns,sqs,s3,secretsmanager",
    }  # fmt: skip
    # In a session of its own: Ctrl-C is for the service, which drains while its broker is still there.
    process = subprocess.Popen(
        [program],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    sys.exit("ministack did not start.")
