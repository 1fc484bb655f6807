"""A running service in which everything with a metric has happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from standins.ports import free_port
from support.http.app import KeyServer, rsa_key, token
from support.processes import Process
from support.telemetry.scrapes import eventually, samples

SERVICE = Path(__file__).parents[1] / "services" / "measured.py"
LAST = {"totoms_leases_lost_total", "totoms_subscription_oldest_age_seconds", "totoms_messages_dead_lettered_total"}
"""The metrics that appear last."""


@contextmanager
def measured_service(folder: Path) -> Iterator[int]:
    """Run the service and yield the port that Prometheus scrapes.

    Args:
        folder: Where it keeps its files.
    """
    port, metrics_port, keys = free_port(), free_port(), KeyServer()
    keys.keys["1"] = rsa_key()
    variables = {
        "PORT": str(port),
        "HYPERSCALER": "local",
        "JWT_SIGNING_KEY": "a key for the tests of metrics, not a secret",
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(metrics_port),
        "TMPDIR": str(folder),
    }
    with keys.running():
        process = Process(SERVICE, keys.uri, root=str(folder / "root"), env=variables)
        try:
            process.port()
            _use(port, metrics_port, _id_token(keys))
            yield metrics_port
        finally:
            process.kill()


def _use(port: int, metrics_port: int, caller: str) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/measured", trust_env=False, timeout=60) as client:
        assert client.post("/orders/placed", headers={"authorization": "Bearer nonsense"}).status_code == 401
        client.request("HACK", "/orders/placed")
        client.get("/somewhere/else")
        headers = {"authorization": f"Bearer {caller}"}
        for kind in ("placed", "refused", "blocking"):
            assert client.post(f"/orders/{kind}", headers=headers).status_code == 200
        wanted = LAST - {"totoms_subscription_oldest_age_seconds"}
        eventually(lambda: wanted - {name for name, _ in samples(metrics_port)}, set())
        assert client.post("/orders/waiting", headers=headers).status_code == 200
        eventually(lambda: LAST - {name for name, _ in samples(metrics_port)}, set())


def _id_token(keys: KeyServer) -> str:
    claims = {"iss": "https://issuer.example", "aud": "measured", "sub": "1", "email": "me@example.com"}
    now = int(time.time())
    own = {"user": None, "authProvider": None}
    return token(keys.keys["1"], "RS256", {"kid": "1"}, **claims, **own, email_verified=True, iat=now)
