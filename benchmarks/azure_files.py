"""Files on Blob Storage, compared with the bare client (`upload_blob`, `download_blob`) doing the same.

The server answers without storing anything. Run as ``python -m benchmarks.azure_files``.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.files import BUCKET, FileBenchmark, Sides

CONNECTION = "DefaultEndpointsProtocol=http;AccountName=bench;AccountKey=YmVuY2g=;BlobEndpoint={};"


@contextlib.contextmanager
def canned_blob() -> Iterator[dict[str, str]]:
    """Run the canned server and give the variables with which the SDK asks it."""
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.canned_blob"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            address = f"http://127.0.0.1:{int(server.stdout.readline())}/bench"
            yield {"AZURE_STORAGE_CONNECTION_STRING": CONNECTION.format(address), "HYPERSCALER": "azure"}
        finally:
            server.kill()


def _bare() -> Sides:
    import os

    from azure.storage.blob import BlobServiceClient

    service = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    container = service.get_container_client(BUCKET)

    def up(path: str, key: str) -> None:
        with Path(path).open("rb") as file:
            container.upload_blob(key, file, overwrite=True)

    def down(key: str, path: str) -> None:
        with Path(path).open("wb") as file:
            container.download_blob(key).readinto(file)

    return up, down


if __name__ == "__main__":
    FileBenchmark("benchmarks.azure_files", "Blob Storage", "the bare client", _bare, canned_blob).main()
