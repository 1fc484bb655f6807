"""A server that answers what AWS would, without doing anything: so that the client is what is measured.

``python -m benchmarks.canned_aws`` prints its port. It knows SNS (Publish, PublishBatch), SQS (a queue that never ends,
subscribed to the topic), Secrets Manager (GetSecretValue) and S3 (objects of one content, in parts and in ranges). With
``--sns-delay`` SNS takes its time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from benchmarks.files import CONTENT_BYTES

SIGNING_KEY: Final = "a signing key for benchmarks only, long enough"
TOPIC: Final = "arn:aws:sns:eu-north-1:000000000000:bench"
QUEUE: Final = "measured-bench"
_QUEUES: Final = "arn:aws:sqs:eu-north-1:000000000000:"
_PIECE: Final = b"0123456789abcdef" * 16384  # 256 KiB
_ENTRY: Final = re.compile(r"PublishBatchRequestEntries\.member\.\d+\.Id")
_FIELD: Final = re.compile(rb"\r\n(content-length|expect|range|x-amz-target): *([^\r]*)", re.IGNORECASE)
_ETAG: Final = '"00000000000000000000000000000000"'
_ID: Final = "11111111-1111-1111-1111-111111111111"


class Connection(asyncio.Protocol):
    """One connection; requests one after the other.

    Args:
        sns_delay: Seconds that SNS takes.
    """

    def __init__(self, sns_delay: float) -> None:
        self._sns_delay = sns_delay
        self._head = bytearray()
        self._body = bytearray()
        self._missing = -1  # bytes of the body that are to come; less than 0: in the head
        self._request: tuple[str, str, dict[bytes, bytes]] = ("", "", {})
        self._transport: asyncio.Transport
        self._writable = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = bytes(self._head[:end]), bytes(self._head[end + 4 :])
            self._head.clear()
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            fields = {name.lower(): value for name, value in _FIELD.findall(head)}
            self._request = method, path, fields
            self._missing = int(fields.get(b"content-length", 0))
            self._body.clear()
            if b"expect" in fields:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._missing -= len(data)
        if self._request[0] != "PUT":  # files go nowhere
            self._body += data
        if self._missing <= 0:
            self._missing = -1
            self._answer(*self._request, self._body.decode("latin-1"))

    def _answer(self, method: str, path: str, fields: dict[bytes, bytes], body: str) -> None:
        target = fields.get(b"x-amz-target", b"").decode()
        if target.startswith("AmazonSQS."):
            self._send(json.dumps(_queue(target.partition(".")[2], json.loads(body))), "application/x-amz-json-1.0")
        elif target:
            self._send(json.dumps(_secret(json.loads(body)["SecretId"])), "application/x-amz-json-1.1")
        elif path == "/":
            asyncio.get_running_loop().call_later(self._sns_delay, self._send, _published(parse_qs(body)))
        elif method in ("GET", "HEAD"):
            size = 1 if path.endswith("/small") else CONTENT_BYTES
            self._send_object(method, fields.get(b"range", b"").decode(), size)
        else:
            self._send(_put(method, parse_qs(urlsplit(path).query, keep_blank_values=True)))

    def _send(self, text: str, content_type: str = "text/xml") -> None:
        head = (
            f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(text)}\r\netag: {_ETAG}\r\n\r\n"
        )
        self._transport.write((head + text).encode())

    def _send_object(self, method: str, span: str, size: int) -> None:
        first, last = 0, size - 1
        status = "200 OK"
        if span:
            begin, _, end = span.removeprefix("bytes=").partition("-")
            first, last = int(begin), min(int(end or last), last)
            status = f"206 Partial Content\r\ncontent-range: bytes {first}-{last}/{size}"
        self._transport.write(
            f"HTTP/1.1 {status}\r\ncontent-length: {last - first + 1}\r\ncontent-type: text/plain\r\n"
            f"etag: {_ETAG}\r\naccept-ranges: bytes\r\nlast-modified: Sun, 01 Nov 2026 00:00:00 GMT\r\n\r\n".encode()
        )
        if method == "GET":
            self._sending = asyncio.ensure_future(self._stream(last - first + 1))

    async def _stream(self, length: int) -> None:
        while length > 0 and not self._transport.is_closing():
            self._transport.write(_PIECE if length >= len(_PIECE) else _PIECE[:length])
            length -= len(_PIECE)
            await self._writable.wait()


def _secret(name: str) -> dict[str, str]:
    value = TOPIC if name.endswith("-topic") else SIGNING_KEY
    return {"Name": name, "SecretString": value, "VersionId": _ID, "ARN": "arn:aws:secretsmanager:x:0:secret:x"}


def _queue(operation: str, asked: dict[str, Any]) -> dict[str, Any]:
    if operation == "ReceiveMessage":
        if asked["QueueUrl"].endswith("-undelivered"):  # SNS has given up nothing
            return {}
        return {"Messages": [_MESSAGE] * asked["MaxNumberOfMessages"]}
    if operation in ("DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
        return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]], "Failed": []}
    if operation == "GetQueueUrl":
        return {"QueueUrl": f"http://127.0.0.1/000000000000/{asked['QueueName']}"}
    source = {"ArnEquals": {"aws:SourceArn": TOPIC}}
    statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*", "Condition": source}
    redrive = {"deadLetterTargetArn": f"{_QUEUES}{QUEUE}-dead", "maxReceiveCount": 10}
    return {
        "Attributes": {
            "QueueArn": f"{_QUEUES}{QUEUE}",
            "Policy": json.dumps({"Statement": [statement]}),
            "RedrivePolicy": json.dumps(redrive),
        }
    }


_MESSAGE: Final = {
    "MessageId": _ID,
    "ReceiptHandle": _ID * 4,
    "Attributes": {"ApproximateReceiveCount": "1"},
    "Body": json.dumps(
        {
            "type": "measured",
            "timestamp": "2026.11.01 00:00:00",
            "cid": "1",
            "id": "1",
            "msg": "",
            "data": {"filling": "x" * 900},
        }
    ),
    "MessageAttributes": {"type": {"DataType": "String", "StringValue": "measured"}},
}


def _published(form: dict[str, list[str]]) -> str:
    """Answer SNS's operations."""
    action, inside = form["Action"][0], ""
    if action == "PublishBatch":
        ids = [values[0] for name, values in form.items() if _ENTRY.fullmatch(name)]
        members = "".join(f"<member><Id>{one}</Id><MessageId>{_ID}</MessageId></member>" for one in ids)
        inside = f"<Failed/><Successful>{members}</Successful>"
    elif action == "Publish":
        inside = f"<MessageId>{_ID}</MessageId>"
    elif action == "ListSubscriptionsByTopic":
        ours = (
            f"<Protocol>sqs</Protocol><Endpoint>{_QUEUES}{QUEUE}</Endpoint><SubscriptionArn>{TOPIC}:1</SubscriptionArn>"
        )
        inside = f"<Subscriptions><member>{ours}</member></Subscriptions>"
    elif action == "GetSubscriptionAttributes":
        inside = "<Attributes><entry><key>RawMessageDelivery</key><value>true</value></entry></Attributes>"
    return f"<{action}Response><{action}Result>{inside}</{action}Result></{action}Response>"


def _put(method: str, query: dict[str, list[str]]) -> str:
    if method == "POST" and "uploads" in query:
        return "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
    if method == "POST":
        return '<CompleteMultipartUploadResult><ETag>"0-13"</ETag></CompleteMultipartUploadResult>'
    return ""


async def serve(sns_delay: float, ready: Callable[[int], None]) -> None:
    """Serve on a free port until cancelled."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(sns_delay), "127.0.0.1", 0)
    ready(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sns-delay", type=float, default=0.0)
    delay = parser.parse_args().sns_delay
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(delay, lambda port: print(port, flush=True)))


if __name__ == "__main__":
    main()
