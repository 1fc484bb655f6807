"""Azure on this machine, for the demo: Azurite, and stand-ins of this repository's tests.

Messages go to a stand-in for Service Bus that speaks AMQP, secrets come from one for Key Vault, with a managed
identity, and files are kept by Azurite, which npm installs the first time.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from example import Needs
from servers import free_port, server

ROOT = Path(__file__).resolve().parents[2]
STANDINS = ROOT / "tests" / "standins"
IDENTITY = "the header that the platform gives the service"


@contextlib.contextmanager
def azure(needs: Needs) -> Iterator[None]:
    """Run the servers, with what `needs` names. When they end, everything is gone."""
    sys.path.append(str(ROOT / "tools"))
    import azurite

    with contextlib.ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        identities = free_port()
        vault = running.enter_context(
            server([*stand_in("azure.key_vault", folder / "vault.pem"), f"--entra-port={identities}"])
        )
        messages = running.enter_context(server(stand_in("azure.service_bus.server", folder / "messages.pem")))
        try:
            files = running.enter_context(server(azurite.command("{port}")))
        except FileNotFoundError as error:
            sys.exit(str(error))
        authorities = folder / "authorities.pem"
        authorities.write_bytes((folder / "vault.pem").read_bytes() + (folder / "messages.pem").read_bytes())
        # On Azure there would be the platform's identity, and the names of a vault, an account and a namespace.
        os.environ |= {
            "REQUESTS_CA_BUNDLE": str(authorities),
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{identities}/msi/token",
            "IDENTITY_HEADER": IDENTITY,
            "AZURE_KEY_VAULT_URL": f"https://{vault}",
            "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string(files.rpartition(":")[2]),
            "AZURE_SERVICEBUS_CONNECTION_STRING": (
                f"Endpoint=sb://{messages};SharedAccessKeyName=key;SharedAccessKey=c2VjcmV0;UseDevelopmentEmulator=true"
            ),
        }
        make(needs)
        yield


def stand_in(script: str, authority: Path) -> list[str]:
    """Return the command that runs a stand-in, which writes the certificate of its authority."""
    return [sys.executable, str(STANDINS), script, "--port={port}", f"--ca-file={authority}"]


def make(needs: Needs) -> None:
    """Make topics, containers and secrets with the SDK, as an operator would."""
    from azure.identity import DefaultAzureCredential
    from azure.keyvault.secrets import SecretClient
    from azure.servicebus.management import ServiceBusAdministrationClient
    from azure.storage.blob import BlobServiceClient

    files = BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])
    for bucket in needs.buckets:
        files.create_container(bucket)
    connection = os.environ["AZURE_SERVICEBUS_CONNECTION_STRING"]
    topics = ServiceBusAdministrationClient.from_connection_string(connection)
    for topic in needs.topics.values():
        topics.create_topic(topic)
    store = SecretClient(os.environ["AZURE_KEY_VAULT_URL"], DefaultAzureCredential())
    for name, value in {**needs.topics, **needs.random_secrets()}.items():
        store.set_secret(name, value)
