"""Pushes of SNS to a service that verifies them, compared with totoms 1.5.0, which does not verify anything.

1.5.0 is measured twice: with the same event loop and HTTP parser as ours, and as it starts itself where only what it
requires is installed. All take turns. The pushes are signed with a key of this benchmark, whose certificate the service
takes for SNS's; each is another message, so that nothing about it can be remembered. Run as
``python -m benchmarks.aws_pushes``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import uvloop
from benchmarks.aws_files import canned_aws
from benchmarks.aws_push_services import CERTIFICATE
from benchmarks.canned_aws import TOPIC
from benchmarks.http_requests import python_with_totoms1
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

HERE = Path(__file__).resolve().parent
CONNECTIONS = 32
MESSAGES = 4_000
ROUNDS = 5
GOAL = 1.5


def certificate(key: rsa.RSAPrivateKey) -> bytes:
    """Return a certificate made out to SNS, signed by itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("sns.amazonaws.com")]), critical=False)
        .sign(key, SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def push(key: rsa.RSAPrivateKey) -> bytes:
    """Return what SNS sends for one message of 1 KiB, headers included."""
    message = {"timestamp": "2026.11.01 00:00:00", "cid": uuid.uuid4().hex, "id": "1", "type": "measured", "msg": ""}
    text = json.dumps({**message, "data": {"filling": "x" * 900}})
    sent = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    signed = {
        "Message": text,
        "MessageId": str(uuid.uuid4()),
        "Timestamp": sent,
        "TopicArn": TOPIC,
        "Type": "Notification",
    }
    lines = "".join(f"{name}\n{value}\n" for name, value in signed.items()).encode()
    host = "https://sns.eu-north-1.amazonaws.com"
    body = json.dumps(
        {
            **signed,
            "SignatureVersion": "2",
            "Signature": base64.b64encode(key.sign(lines, padding.PKCS1v15(), SHA256())).decode(),
            "SigningCertURL": f"{host}/SimpleNotificationService-{'0' * 32}.pem",
            "UnsubscribeURL": f"{host}/?x",
            "MessageAttributes": {"messageType": {"Type": "String", "Value": "measured"}},
        }
    ).encode()
    head = (
        "POST /bench/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain; charset=UTF-8\r\n"
        f"x-amz-sns-message-type: Notification\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@contextlib.contextmanager
def service(python: str, variant: str, variables: dict[str, str]) -> Iterator[int]:
    """Run a service and give its port. Its log goes where a collector would be."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [python, str(HERE / "aws_push_services.py"), variant, str(port)]
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{variant} did not start")
                time.sleep(0.05)
            yield port
        finally:
            process.kill()


async def load(port: int, pushes: list[bytes]) -> float:
    """Send pushes over several connections and return how many were answered 200 in a second."""
    waiting = iter(pushes)

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for one in waiting:
            writer.write(one)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            answer = await reader.readexactly(int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0]))
            if b" 200 " not in head.split(b"\r\n", 1)[0]:
                raise SystemExit(f"{(head + answer).decode()}\nwas answered to\n{one.decode()}")
        writer.close()

    begun = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return len(pushes) / (time.perf_counter() - begun)


def measure() -> None:
    """Measure and print."""
    key = rsa.generate_private_key(65537, 2048)
    old = python_with_totoms1(HERE.parent / ".nox" / "bench-totoms1")
    found: dict[str, list[float]] = {"totoms": [], "totoms1": [], "totoms1-alone": []}
    with tempfile.TemporaryDirectory() as folder, canned_aws() as asked, contextlib.ExitStack() as running:
        path = Path(folder) / "certificate.pem"
        path.write_bytes(certificate(key))
        variables: dict[str, str] = {**os.environ, **asked, CERTIFICATE: str(path)}
        pythons = {"totoms": sys.executable} | (dict.fromkeys(("totoms1", "totoms1-alone"), old) if old else {})
        ports = {
            variant: running.enter_context(service(python, variant, variables)) for variant, python in pythons.items()
        }
        for turn in range(ROUNDS + 1):
            for variant, port in ports.items():
                rate = uvloop.run(load(port, [push(key) for _ in range(MESSAGES)]))
                if turn:  # the first warms up
                    found[variant].append(rate)
    print(f"totoms, verified    {statistics.median(found['totoms']):8.0f} pushes/s")
    if not found["totoms1"]:
        print("totoms 1.5.0 could not be installed: no ratio to it.")
        return
    print(f"1.5.0, not verified {statistics.median(found['totoms1']):8.0f} pushes/s")
    print(f"1.5.0, by itself    {statistics.median(found['totoms1-alone']):8.0f} pushes/s")
    same, alone = (
        statistics.median(ours / theirs for ours, theirs in zip(found["totoms"], found[variant], strict=True))
        for variant in ("totoms1", "totoms1-alone")
    )
    print(f"GOAL {same:.2f} >= {GOAL} a verified push of SNS, of 1.5.0's unverified one with uvloop and httptools")
    print(f"GOAL {alone:.2f} >= {GOAL} a verified push of SNS, of 1.5.0's unverified one as 1.5.0 starts itself")


if __name__ == "__main__":
    measure()
