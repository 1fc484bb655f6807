"""AWS on this machine, for the demonstration: a ministack, with what an operator would make in an account."""

import contextlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from servers import server

REGION = "eu-north-1"


@contextlib.contextmanager
def aws() -> Iterator[None]:
    """Run a ministack, with the topic, the bucket and the secrets of the blog. With its end everything is gone."""
    with server(ministack()) as address:
        # The SDK's own variables: on AWS there would be a role, and no endpoint.
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://{address}",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "demo",
            "AWS_SECRET_ACCESS_KEY": "demo",
            "ENVIRONMENT": "dev",
        }
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
