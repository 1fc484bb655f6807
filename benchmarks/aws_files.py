"""Files on S3, compared with bare boto3 (`upload_file`, `download_file`) doing the same, and the memory that takes.

The server answers without storing anything. Run as ``python -m benchmarks.aws_files``.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.files import BUCKET, MIB, FileBenchmark, Sides


@contextlib.contextmanager
def canned_aws(*arguments: str) -> Iterator[dict[str, str]]:
    """Run the canned server and give the variables with which the SDK asks it."""
    command = [sys.executable, "-m", "benchmarks.canned_aws", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{int(server.stdout.readline())}",
                "AWS_ACCESS_KEY_ID": "bench",
                "AWS_SECRET_ACCESS_KEY": "bench",
                "AWS_REGION": "eu-north-1",
                "AWS_DEFAULT_REGION": "eu-north-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_CONFIG_FILE": os.devnull,
                "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
                "HYPERSCALER": "aws",
            }
        finally:
            server.kill()


def _boto3() -> Sides:
    import boto3

    s3 = boto3.client("s3")
    return (
        lambda path, key: s3.upload_file(path, BUCKET, key),
        lambda key, path: s3.download_file(BUCKET, key, path),
    )


if __name__ == "__main__":
    FileBenchmark("benchmarks.aws_files", "S3", "bare boto3", _boto3, canned_aws, more=(512 * MIB,)).main()
