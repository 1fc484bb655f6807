"""Signed URLs of S3."""

from __future__ import annotations

from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration

_regions: Final[dict[str, str]] = {}


def sign(settings: AWSConfiguration, operation: str, parameters: dict[str, str], expires_in: int) -> str:
    """Return a URL that authorizes one kind of request without credentials until it expires.

    It is signed for the bucket's own region: S3 redirects the SDK's requests to it, but refuses a URL that is signed
    for another region.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html#VirtualHostingBackwardsCompatibility

    Args:
        settings: The region of the service.
        operation: The SDK's name of the request.
        parameters: Its arguments, with ``Bucket``.
        expires_in: Seconds.
    """
    s3, bucket = client("s3", settings), parameters["Bucket"]
    if ".amazonaws." in s3.meta.endpoint_url:
        region = _regions.get(bucket) or region_of(s3, bucket)
        if region is not None:
            _regions[bucket] = region
            s3 = client("s3", AWSConfiguration(region=region, environment=settings.environment))
    url: str = s3.generate_presigned_url(operation, Params=parameters, ExpiresIn=expires_in)
    return url


def region_of(s3: Any, bucket: str) -> str | None:
    """Return a bucket's region; None if S3 cannot be reached. It is a header of every answer, errors included.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadBucket.html
    """
    try:
        answer = s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError:
        return None
    found = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region")
    return str(found) if found else None
