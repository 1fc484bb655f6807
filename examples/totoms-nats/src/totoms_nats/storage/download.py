"""Reading the chunks of one version of a file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

from totoms.errors import CorruptData, NotFound
from totoms_nats.clients import ThreadConnection
from totoms_nats.storage.bucket import Bucket
from totoms_nats.storage.objects import StoredObject


def content(client: ThreadConnection, bucket: Bucket, stored: StoredObject, start: int, length: int) -> Iterator[bytes]:
    """Return `length` bytes of a version from `start` on, in chunks. Read as a whole, its digest is verified.

    Raises:
        CorruptData: The content is damaged, or was deleted too long ago.
    """
    number, skipped = divmod(start, stored.chunk_size)
    whole, digest, key = length == stored.info.size, hashlib.sha256(), stored.info.key
    first, last = stored.ends
    place = max(first, 1)
    if first and last - first + 1 == stored.chunks:  # side by side
        place, number = first + number, 0
    while length > 0:
        try:
            message = client.run(bucket.chunk_after(stored.info.etag, place))
        except NotFound as error:
            raise CorruptData(
                f"The content of {key!r} is gone: it was replaced or deleted too long ago.", resource=key
            ) from error
        place = (message.seq or 0) + 1
        if number:
            number -= 1
            continue
        chunk = (message.data or b"")[skipped : skipped + length]
        skipped = 0
        length -= len(chunk)
        digest.update(chunk)
        if whole and not length and stored.digest:
            expected = base64.urlsafe_b64decode(stored.digest.partition("=")[2])
            if expected != digest.digest():
                raise CorruptData(f"The content of {key!r} is damaged.", resource=key)
        yield chunk
