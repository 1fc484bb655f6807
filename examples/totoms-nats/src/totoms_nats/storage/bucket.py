"""The stream of one bucket: finding, replacing, deleting and listing files."""

from __future__ import annotations

import time
from typing import Final

from nats.js import api
from nats.js.api import RawStreamMsg

from totoms.errors import NotFound, PreconditionFailed, Unavailable
from totoms.plugin import WriteOptions, new_cid
from totoms_nats.clients import Connection
from totoms_nats.messages.pull import Pull, Source
from totoms_nats.storage.objects import StoredObject, chunk_subject, document_subject, read_document, write_document

KEPT_SECONDS: Final = 300.0
"""How long the content of a replaced or deleted file stays, for those who are reading it."""
_DELETE_EVERY: Final = 60.0
_REPLACED: Final = "totoms-replaced"
_PAGE: Final = 1000
_last_deleted: Final[dict[str, float]] = {}


class Bucket:
    """The stream of an object store. Call it on the loop of its connection.

    Args:
        connection: The connection.
        name: The name of the object store.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name
        self._stream = f"OBJ_{name}"

    async def find(self, key: str) -> tuple[StoredObject | None, int]:
        """Return the current version of a file, or None, and the place of the last document about it.

        Raises:
            NotFound: There is no such bucket.
        """
        subject = document_subject(self._name, key)
        try:
            message = await self._get(0, subject)
        except NotFound:
            await self._check()
            return None, 0
        return read_document(key, message), message.seq or 0

    async def keep_chunk(self, version: str, number: int, chunk: bytes) -> int:
        """Store a chunk of a new version; return its place in the stream."""
        once = {"Nats-Msg-Id": f"{version}.{number}"}
        kept = await self._connection.publish(chunk_subject(self._name, version), chunk, once)
        return int(kept["seq"])

    async def put_in_place(self, stored: StoredObject, options: WriteOptions) -> None:
        """Make a version, whose chunks are stored, the current one.

        Raises:
            PreconditionFailed: A condition in `options` does not hold. Of several writers with one condition one wins.
        """
        key = stored.info.key
        while True:
            before, place = await self.find(key)
            if before is not None and before.info.etag == stored.info.etag:
                return  # it is in place: an answer got lost
            _check_precondition(key, before, options)
            # JetStream refuses the write if another document was written since. Then the conditions are checked again.
            headers = {
                "Nats-Rollup": "sub",
                "Nats-Expected-Last-Subject-Sequence": str(place),
                "Nats-Msg-Id": stored.info.etag,
            }
            try:
                await self._connection.publish(
                    document_subject(self._name, key), write_document(self._name, stored), headers
                )
            except PreconditionFailed:
                continue
            break
        if before is not None:
            await self._discard(before)

    async def delete(self, key: str) -> None:
        """Delete a file, if there is one."""
        stored, place = await self.find(key)
        if stored is not None:
            # Up to the document that was found: a later one is another file.
            await self._purge(document_subject(self._name, key), before=place + 1)
            await self._discard(stored)

    async def delete_version(self, version: str) -> None:
        """Delete the chunks of a version."""
        await self._purge(chunk_subject(self._name, version))

    async def chunk_after(self, version: str, place: int) -> RawStreamMsg:
        """Return the first chunk of a version at `place` or after it."""
        return await self._get(place, chunk_subject(self._name, version))

    async def keys(self) -> list[str]:
        """Return the names of all files, in no order."""
        call, name = self._connection.call, new_cid()
        config = api.ConsumerConfig(
            name=name,
            filter_subject=f"$O.{self._name}.M.>",
            deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=api.AckPolicy.NONE,
            inactive_threshold=60,
            mem_storage=True,
        )
        await call(lambda js: js.add_consumer(self._stream, config), f"There is no bucket {self._name!r}", self._name)
        # Includes what is written meanwhile: the old document of a file that is replaced then may be gone already.
        found: dict[str, str] = {}
        try:
            while True:
                page = Pull(await self._connection.client(), Source(self._stream, name, 0), _PAGE)
                await page.run(0)
                if not page.answered:
                    raise Unavailable(f"NATS went away while {self._name!r} was listed.", resource=self._name)
                for message in page.messages:
                    stored = read_document(message.subject, RawStreamMsg(data=message.data))
                    if stored is not None:
                        found[message.subject] = stored.info.key
                    else:
                        found.pop(message.subject, None)
                if len(page.messages) < _PAGE:
                    return list(found.values())
        finally:
            await call(lambda js: js.delete_consumer(self._stream, name), "Not deleted", name)

    # --- replaced and deleted versions ---

    async def _discard(self, stored: StoredObject) -> None:
        # Noted under a subject of its own; deleted by a later write.
        notes = chunk_subject(self._name, _REPLACED)
        await self._connection.publish(
            notes, stored.info.etag.encode(), {"Nats-Msg-Id": f"{stored.info.etag}.replaced"}
        )
        now = time.monotonic()
        if now >= _last_deleted.get(self._stream, float("-inf")) + _DELETE_EVERY:
            _last_deleted[self._stream] = now
            await self.delete_replaced(time.time() - KEPT_SECONDS)

    async def delete_replaced(self, before: float) -> None:
        """Delete the content of files that were replaced or deleted before a time, in seconds since the epoch."""
        place = 1
        while True:
            try:
                note = await self._get(place, chunk_subject(self._name, _REPLACED))
            except NotFound:
                return
            if note.time is None or note.time.timestamp() >= before:
                return
            await self.delete_version((note.data or b"").decode())
            place = (note.seq or 0) + 1
            await self._purge(chunk_subject(self._name, _REPLACED), before=place)

    # --- requests ---

    async def _get(self, place: int, subject: str) -> RawStreamMsg:
        return await self._connection.call(
            lambda js: js.get_msg(self._stream, seq=place or None, subject=subject, next=bool(place)),
            "There is no such message",
            subject,
        )

    async def _check(self) -> None:
        await self._connection.call(
            lambda js: js.stream_info(self._stream), f"There is no bucket {self._name!r}", self._name
        )

    async def _purge(self, subject: str, before: int | None = None) -> None:
        await self._connection.call(
            lambda js: js.purge_stream(self._stream, seq=before, subject=subject), "Not deleted", subject
        )


def _check_precondition(key: str, before: StoredObject | None, options: WriteOptions) -> None:
    if options.if_absent and before is not None:
        raise PreconditionFailed(f"{key!r} exists already.", resource=key)
    if options.if_match is not None and (before is None or before.info.etag != options.if_match):
        how = "does not exist" if before is None else "has changed"
        raise PreconditionFailed(f"{key!r} {how}.", resource=key)
