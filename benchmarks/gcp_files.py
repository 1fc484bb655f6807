"""Files on Cloud Storage, compared with the bare client (`upload_from_filename`, `download_to_filename`).

The server answers without storing anything. Run as ``python -m benchmarks.gcp_files``.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.files import BUCKET, FileBenchmark, Sides


@contextlib.contextmanager
def canned_gcs() -> Iterator[dict[str, str]]:
    """Run the canned server and give the variables with which the SDK asks it."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.canned_gcs"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            yield {"STORAGE_EMULATOR_HOST": address, "GCP_PID": "bench-project", "HYPERSCALER": "gcp"}
        finally:
            server.kill()


def _bare() -> Sides:
    from google.cloud import storage

    bucket = storage.Client(project="bench-project").bucket(BUCKET)
    return (
        lambda path, key: bucket.blob(key).upload_from_filename(path),
        lambda key, path: bucket.blob(key).download_to_filename(path),
    )


if __name__ == "__main__":
    FileBenchmark("benchmarks.gcp_files", "Cloud Storage", "the bare client", _bare, canned_gcs).main()
