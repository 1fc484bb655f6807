"""AWS on this machine, for the demo: a ministack, with what an operator would make in an account."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from example import Needs
from servers import server

REGION = "eu-north-1"


@contextlib.contextmanager
def aws(needs: Needs) -> Iterator[None]:
    """Run a ministack with what `needs` names. When it ends, everything is gone."""
    with server(ministack()) as address:
        # The SDK's own variables: on AWS there would be a role, and no endpoint.
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "ENVIRONMENT": "dev",
        }
        make(needs)
        yield


def make(needs: Needs) -> None:
    """Make topics, buckets, and secrets named ``{environment}/{name}``."""
    import boto3

    def client(service: str) -> Any:
        return boto3.client(service, region_name=REGION)

    values = needs.random_secrets()
    for secret, topic in needs.topics.items():
        values[secret] = client("sns").create_topic(Name=topic)["TopicArn"]
    for bucket in needs.buckets:
        client("s3").create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for name, value in values.items():
        client("secretsmanager").create_secret(Name=f"dev/{name}", SecretString=value)


def ministack() -> list[str]:
    """Return the command that runs a ministack."""
    beside = Path(sys.executable).parent / "ministack"
    program = str(beside) if beside.exists() else shutil.which("ministack")
    if program is None:
        sys.exit("There is no ministack on this machine: pip install ministack")
    settings = (
        "BIND_HOST=127.0.0.1",
        "GATEWAY_PORT={port}",
        "MINISTACK_HOST=127.0.0.1",
        "SERVICES=sns,sqs,s3,secretsmanager",
    )
    return ["env", *settings, program]
