"""Create in an emulator of AWS what the blog needs of an account: a topic, a bucket and secrets. It may run again."""

import contextlib
import os
import secrets
from typing import Any

import boto3

ENVIRONMENT = os.environ.get("ENVIRONMENT", "dev")
REGION = os.environ["AWS_REGION"]


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


def add_secret(name: str, value: str) -> None:
    manager = client("secretsmanager")
    with contextlib.suppress(manager.exceptions.ResourceExistsException):
        manager.create_secret(Name=f"{ENVIRONMENT}/{name}", SecretString=value)


s3 = client("s3")
with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
    s3.create_bucket(Bucket="blog", CreateBucketConfiguration={"LocationConstraint": REGION})
add_secret("posts-topic", client("sns").create_topic(Name="posts")["TopicArn"])
add_secret("digest-key", secrets.token_hex(32))
# In production this is a value that only you know. Here, tokens for trying things out are signed with it.
add_secret("jwt-signing-key", os.environ["JWT_SIGNING_KEY"])
