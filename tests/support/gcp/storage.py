"""Cloud Storage under the storage contract: the stand-in as a process, and a service account that signs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.testing import CloudStorageHarness
from totoms_gcp.clients import FILES_EMULATOR, files, registry
from totoms_gcp.configuration import GCPConfiguration

STANDINS = Path(__file__).parents[2] / "standins"
PROJECT = "project-one"


def write_account(path: Path, token_address: str = "http://127.0.0.1:1/token") -> Path:
    """Write the key file of an invented service account."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    document = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": pem.decode(),
        "client_email": f"signer@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_address,
    }
    path.write_text(json.dumps(document))
    return path


@contextlib.contextmanager
def stand_in(script: str, *arguments: str) -> Iterator[int]:
    """Run a stand-in as a process; yield its port."""
    command = [sys.executable, str(STANDINS), script, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"{script} did not start"
            yield int(line)
        finally:
            process.kill()


@contextlib.contextmanager
def settings(address: str, account: Path | None = None) -> Iterator[GCPConfiguration]:
    """Have the SDK call `address` and sign as `account`, whatever credentials the developer has."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("GOOGLE_", "GCP_", "GCLOUD_"))]:
            patch.delenv(name)
        patch.setenv(FILES_EMULATOR, address)
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account or "/nowhere"))
        registry.close()
        try:
            yield GCPConfiguration(project_id=PROJECT)
        finally:
            registry.close()


class GCSHarness(CloudStorageHarness):
    """Buckets of a stand-in.

    Args:
        address: Where it is.
        configuration: The settings.
    """

    def __init__(self, address: str, configuration: GCPConfiguration) -> None:
        self._address = address
        self._environment = TotoEnvironment("gcp", configuration)
        self.missing_bucket = f"missing-{new_cid()}"

    @property
    def environment(self) -> TotoEnvironment:
        return self._environment

    async def create_bucket(self) -> str:
        name = f"bucket-{new_cid()}"
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{self._address}/storage/v1/b", json={"name": name})
        assert answer.is_success
        return name

    async def store_encoded(self, bucket: str, key: str, content: bytes, encoding: str) -> None:
        def store() -> None:
            blob = files(PROJECT).client.bucket(bucket).blob(key)
            blob.content_encoding = encoding
            blob.upload_from_string(content)

        await asyncio.to_thread(store)

    async def close(self) -> None: ...
