"""Stands in for Cloud Storage: its JSON API, and signed URLs, over HTTP. It runs in threads, or as a process.

Generations and preconditions, multipart and resumable uploads, rewrites in steps, pages, ranges, checksums, V4
signatures that are verified, and faults.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from standins.gcp.gcs_objects import Fault, Refused, Store, resource
from standins.gcp.gcs_signatures import Accounts

_OBJECT = r"/storage/v1/b/(?P<bucket>[^/]+)/o/(?P<key>[^/]+)"
_UPLOAD = r"/upload/storage/v1/b/(?P<bucket>[^/]+)/o"


class GCSStandIn:
    """Use it with ``with``.

    Attributes:
        store: What it holds, and the faults it is to have.
        address: What URLs begin with.
    """

    def __init__(self, port: int = 0, accounts: Accounts | None = None) -> None:
        self.store = Store()
        handler = type("Handler", (_Handler,), {"store": self.store, "accounts": accounts or Accounts()})
        self._server = _Server(("127.0.0.1", port), handler)
        self.port = int(self._server.server_address[1])
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> GCSStandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self) -> None:
        """Return when it has stopped."""
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None: ...  # clients that go away


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    store: Store
    accounts: Accounts

    def do_GET(self) -> None:
        """Answer whatever it is."""
        url = urlsplit(self.path)
        self.asked = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        fault = self.store.fault_for(self.command, self.path)
        self.body = self._read_body(fault)
        if fault and fault.drop:
            self.close_connection = True
            return
        try:
            if fault and fault.status:
                raise Refused(fault.status, fault.message)
            self._answer(fault, *self._route(url.path))
        except Refused as refused:
            document = {"error": {"code": refused.status, "message": refused.message, "errors": []}}
            self._answer(fault, refused.status, json.dumps(document).encode(), {})

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None: ...

    def _read_body(self, fault: Fault | None) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return body if fault is None or fault.keep is None else body[: fault.keep]

    def _answer(self, fault: Fault | None, status: int, body: bytes | memoryview, headers: dict[str, str]) -> None:
        if fault and fault.lose:
            self.close_connection = True
            return
        self.send_response(status)
        headers = {"Content-Type": "application/json; charset=UTF-8", **headers, "Content-Length": str(len(body))}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault and fault.cut is not None:
            body, self.close_connection = body[: fault.cut], True
        if fault and fault.damage:
            body = bytes([body[0] ^ 1]) + bytes(body[1:])
        self.wfile.write(body)
        self.wfile.flush()

    def _route(self, path: str) -> tuple[int, bytes | memoryview, dict[str, str]]:
        for method, pattern, answer in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method == self.command:
                return answer(self, **{name: unquote(text) for name, text in found.groupdict().items()})
        return self._signed(path)

    # --- buckets and objects ---

    def _create_bucket(self) -> Any:
        name = json.loads(self.body)["name"]
        self.store.buckets.setdefault(name, {})
        return _json({"kind": "storage#bucket", "name": name})

    def _list(self, bucket: str) -> Any:
        asked = self.asked
        keys, prefixes, token = self.store.page(
            bucket,
            asked.get("prefix", ""),
            asked.get("delimiter", ""),
            asked.get("pageToken", ""),
            int(asked.get("maxResults", 1000)),
        )
        answer: dict[str, Any] = {"kind": "storage#objects", "prefixes": prefixes}
        answer["items"] = [resource(self.store.find(bucket, key)) for key in keys]
        return _json(answer | ({"nextPageToken": token} if token else {}))

    def _get(self, bucket: str, key: str) -> Any:
        found = self.store.find(bucket, key, self.asked)
        if self.asked.get("alt") != "media":
            return _json(resource(found))
        return self._media(found)

    def _media(self, found: Any) -> Any:
        headers = {
            "Content-Type": found.content_type,
            "X-Goog-Generation": str(found.generation),
            "X-Goog-Hash": f"crc32c={found.crc32c}",
            "ETag": f'"{found.generation}"',
        }
        if found.encoding:
            if "gzip" not in self.headers.get("Accept-Encoding", ""):
                # Decompressive transcoding: ranges are ignored, and the size is not known before.
                # https://cloud.google.com/storage/docs/transcoding
                with contextlib.suppress(gzip.BadGzipFile):
                    return 200, memoryview(gzip.decompress(found.content)), headers
            headers["Content-Encoding"] = found.encoding
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span:
            return 200, memoryview(found.content), headers
        start, size = int(span[1]), len(found.content)
        end = min(int(span[2]) + 1 if span[2] else size, size)
        if start >= size:
            raise Refused(416, "Request range not satisfiable")
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return 206, memoryview(found.content)[start:end], headers

    def _delete(self, bucket: str, key: str) -> Any:
        self.store.delete(bucket, key, self.asked)
        return 204, b"", {}

    def _rewrite(self, bucket: str, key: str, bucket2: str, key2: str) -> Any:
        done, total, made, token = self.store.rewrite(
            (bucket, key), (bucket2, key2), self.asked, json.loads(self.body or b"{}")
        )
        answer: dict[str, Any] = {"totalBytesRewritten": str(done), "objectSize": str(total), "done": made is not None}
        return _json(answer | ({"resource": resource(made)} if made else {"rewriteToken": token}))

    # --- uploads ---

    def _upload(self, bucket: str) -> Any:
        if self.asked.get("uploadType") == "multipart":
            head, content = _parts(self.body, self.headers["Content-Type"])
            head.setdefault("name", self.asked.get("name"))
            return _json(resource(self.store.write(bucket, head, content, self.asked)))
        head = json.loads(self.body or b"{}")
        head.setdefault("name", self.asked.get("name"))
        head.setdefault("contentType", self.headers.get("X-Upload-Content-Type"))
        session = self.store.begin(bucket, head, self.asked)
        location = f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id="
        return 200, b"", {"Location": location + session}

    def _continue(self, bucket: str) -> Any:
        sent = self.headers.get("X-Goog-Hash", "")
        kept, made = self.store.add(self.asked["upload_id"], self.headers["Content-Range"], self.body, sent)
        if made is not None:
            return _json(resource(made))
        return 308, b"", {"Range": f"bytes=0-{kept - 1}"} if kept else {}

    def _cancel(self, bucket: str) -> Any:
        self.store.sessions.pop(self.asked["upload_id"], None)
        return 499, b"", {}

    # --- signed URLs ---

    def _signed(self, path: str) -> Any:
        _, bucket, key = [*path.split("/", 2), "", ""][:3]
        self.accounts.verify(self.command, self.path, self.headers)
        bucket, key = unquote(bucket), unquote(key)
        if self.command == "GET":
            return self._media(self.store.find(bucket, key))
        if self.command != "PUT":
            raise Refused(405, "The specified method is not allowed.")
        head = {"name": key, "contentType": self.headers.get("Content-Type")}
        made = self.store.write(bucket, head, self.body, {})
        return 200, b"", {"X-Goog-Generation": str(made.generation)}


_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    ("POST", r"/storage/v1/b", _Handler._create_bucket),
    ("GET", r"/storage/v1/b/(?P<bucket>[^/]+)/o", _Handler._list),
    ("GET", _OBJECT, _Handler._get),
    ("GET", "/download" + _OBJECT, _Handler._get),
    ("DELETE", _OBJECT, _Handler._delete),
    ("POST", _OBJECT + r"/rewriteTo/b/(?P<bucket2>[^/]+)/o/(?P<key2>[^/]+)", _Handler._rewrite),
    ("POST", _UPLOAD, _Handler._upload),
    ("PUT", _UPLOAD, _Handler._continue),
    ("DELETE", _UPLOAD, _Handler._cancel),
]


def _json(document: Any) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps(document).encode(), {}


def _parts(body: bytes, content_type: str) -> tuple[dict[str, Any], bytes]:
    found = re.search(r'boundary="?([^";]+)', content_type)
    assert found
    boundary = b"--" + found[1].strip("'").encode()
    head, content = body.removeprefix(boundary + b"\r\n").split(b"\r\n" + boundary + b"\r\n", 1)
    head = head.split(b"\r\n\r\n", 1)[1]
    described, content = content.split(b"\r\n\r\n", 1)
    document = json.loads(head)
    media = re.search(rb"content-type: *([^\r\n]+)", described, re.IGNORECASE)
    document.setdefault("contentType", media[1].decode() if media else None)
    return document, content.removesuffix(b"\r\n" + boundary + b"--").removesuffix(b"\r\n" + boundary + b"--\r\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--account", type=Path, help="the key file of a service account, whose signatures count")
    given = parser.parse_args()
    with GCSStandIn(given.port, Accounts.of(given.account) if given.account else None) as server:
        print(server.port, flush=True)
        server.wait()
