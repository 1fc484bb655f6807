"""What the stand-in of Cloud Storage holds: buckets, objects with generations, uploads, rewrites; and its faults."""

from __future__ import annotations

import base64
import itertools
import re
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import google_crc32c

REWRITE_STEP = 16 * 1024 * 1024
_GRANULE = 256 * 1024


class Refused(Exception):
    """The answer is an error."""

    def __init__(self, status: int, message: str = "") -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


@dataclass
class Fault:
    """What goes wrong with the next requests that match.

    Attributes:
        method: Their method; empty for any.
        path: What their target has in it.
        times: How many of them.
        status: Answered instead.
        drop: Closed without an answer, and without having done it.
        lose: Done, then closed without an answer.
        cut: The answer's body breaks off after so many bytes.
        keep: Only so many bytes of the request's body arrive.
        damage: The first byte of the answer's body is another.
    """

    method: str = ""
    path: str = ""
    times: int = 1
    status: int = 0
    message: str = "as the test says"
    drop: bool = False
    lose: bool = False
    cut: int | None = None
    keep: int | None = None
    damage: bool = False


@dataclass
class Stored:
    """One generation of an object."""

    bucket: str
    name: str
    content: bytes
    content_type: str
    metadata: dict[str, str]
    generation: int
    crc32c: str
    updated: str
    encoding: str = ""
    storage_class: str = "STANDARD"
    kms_key: str = ""


@dataclass
class Session:
    """A resumable upload."""

    bucket: str
    head: dict[str, Any]
    asked: dict[str, str]
    content: bytearray = field(default_factory=bytearray)
    made: Stored | None = None


class Store:
    """Shared by all connections."""

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, Stored]] = {}
        self.sessions: dict[str, Session] = {}
        self.faults: list[Fault] = []
        self.calls: Counter[str] = Counter()
        self._rewrites: dict[str, int] = {}
        self._generations = itertools.count(int(time.time() * 1e6))
        self._lock = threading.RLock()

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.calls[method] += 1
            for fault in self.faults:
                if fault.times > 0 and fault.method in ("", method) and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def find(self, bucket: str, key: str, asked: dict[str, str] | None = None) -> Stored:
        found = self._bucket(bucket).get(key)
        wanted = (asked or {}).get("generation")
        if found is None or (wanted and int(wanted) != found.generation):
            raise Refused(404, f"No such object: {bucket}/{key}")
        self._check(bucket, key, asked or {})
        return found

    def write(self, bucket: str, head: dict[str, Any], content: bytes, asked: dict[str, str]) -> Stored:
        crc32c = checksum(content)
        if head.get("crc32c", crc32c) != crc32c:
            raise Refused(400, "Provided CRC32C does not match calculated CRC32C.")
        with self._lock:
            objects, key = self._bucket(bucket), head["name"]
            self._check(bucket, key, asked)
            made = objects[key] = Stored(
                bucket,
                key,
                content,
                head.get("contentType") or "application/octet-stream",
                head.get("metadata") or {},
                next(self._generations),
                crc32c,
                _now(),
                head.get("contentEncoding") or "",
                head.get("storageClass") or "STANDARD",
                asked.get("kmsKeyName", ""),
            )
            return made

    def delete(self, bucket: str, key: str, asked: dict[str, str]) -> None:
        with self._lock:
            self.find(bucket, key, asked)
            del self.buckets[bucket][key]

    def page(
        self, bucket: str, prefix: str, delimiter: str, token: str, count: int
    ) -> tuple[list[str], list[str], str]:
        with self._lock:
            keys = sorted(key for key in self._bucket(bucket) if key.startswith(prefix))
        entries: dict[str, bool] = {}  # by name, whether it is a common prefix
        for key in keys:
            head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
            entries[prefix + head + delimiter if found else key] = bool(found) or entries.get(key, False)
        # An object whose name is itself a common prefix appears among the prefixes, and not as an item.
        rest = [name for name in sorted(entries) if name > token][: count + 1]
        shown = rest[:count]
        return (
            [name for name in shown if not entries[name]],
            [name for name in shown if entries[name]],
            shown[-1] if len(rest) > count else "",
        )

    def rewrite(
        self, source: tuple[str, str], target: tuple[str, str], asked: dict[str, str], given: dict[str, Any]
    ) -> tuple[int, int, Stored | None, str]:
        with self._lock:
            pinned = {"generation": asked["sourceGeneration"]} if "sourceGeneration" in asked else {}
            found = self.find(*source, pinned)
            token = asked.get("rewriteToken") or uuid.uuid4().hex
            done = min(self._rewrites.pop(token, 0) + REWRITE_STEP, len(found.content))
            if done < len(found.content):
                self._rewrites[token] = done
                return done, len(found.content), None, token
            head = {
                "name": target[1],
                "contentType": found.content_type,
                "metadata": dict(found.metadata),
                "contentEncoding": found.encoding,
            }
            if given:  # its metadata take the place of the source's, and the rest is the bucket's default
                head = {**given, "name": target[1]}
            asked = {**asked, "kmsKeyName": asked.get("destinationKmsKeyName", "")}
            made = self.write(target[0], head, found.content, asked)
            return done, done, made, ""

    def begin(self, bucket: str, head: dict[str, Any], asked: dict[str, str]) -> str:
        self._check(bucket, head["name"], asked)
        name = uuid.uuid4().hex
        self.sessions[name] = Session(bucket, head, asked)
        return name

    def add(self, name: str, span: str, body: bytes, sent_hash: str) -> tuple[int, Stored | None]:
        session = self.sessions.get(name)
        if session is None:
            raise Refused(410, "The upload session is gone.")
        if session.made is not None:
            return len(session.content), session.made
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", span)
        if not found:
            raise Refused(400, "Invalid Content-Range.")
        start, total = found[1], found[3]
        if start is not None:
            if int(start) > len(session.content):
                raise Refused(503, "A gap.")
            whole = len(body) == int(found[2]) - int(start) + 1
            body = body[len(session.content) - int(start) :]
            if whole and total != "*":
                session.content += body
            else:
                room = (len(session.content) + len(body)) // _GRANULE * _GRANULE - len(session.content)
                session.content += body[: max(room, 0)]
                if not whole:
                    raise Refused(503, "It broke off.")
        if total == "*" or len(session.content) < int(total):
            return len(session.content), None
        content = bytes(session.content)
        if sent_hash and sent_hash != f"crc32c={checksum(content)}":
            raise Refused(400, "Provided CRC32C does not match calculated CRC32C.")
        session.made = self.write(session.bucket, session.head, content, session.asked)
        session.content.clear()
        return len(content), session.made

    def _bucket(self, name: str) -> dict[str, Stored]:
        if name not in self.buckets:
            raise Refused(404, "The specified bucket does not exist.")
        return self.buckets[name]

    def _check(self, bucket: str, key: str, asked: dict[str, str]) -> None:
        found, wanted = self._bucket(bucket).get(key), asked.get("ifGenerationMatch")
        if wanted is not None and int(wanted) != (found.generation if found else 0):
            raise Refused(412, "At least one of the pre-conditions you specified did not hold.")


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def checksum(content: bytes) -> str:
    """Return the CRC32C as Cloud Storage writes it."""
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def resource(stored: Stored) -> dict[str, Any]:
    """Return an object's resource, as the JSON API does."""
    return {
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": "1",
        "contentType": stored.content_type,
        "size": str(len(stored.content)),
        "crc32c": stored.crc32c,
        "updated": stored.updated,
        "timeCreated": stored.updated,
        "etag": str(stored.generation),
        **({"metadata": stored.metadata} if stored.metadata else {}),
        "storageClass": stored.storage_class,
        **({"kmsKeyName": f"{stored.kms_key}/cryptoKeyVersions/1"} if stored.kms_key else {}),
        **({"contentEncoding": stored.encoding} if stored.encoding else {}),
    }
