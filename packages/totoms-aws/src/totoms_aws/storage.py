"""Files on Amazon S3."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, BinaryIO, Final, Literal, cast

from botocore.exceptions import ClientError

from totoms.context import new_cid
from totoms.errors import BackendError, NotFound, PreconditionFailed, Unavailable
from totoms.storage import CloudStorage
from totoms.storage_driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.download import Download
from totoms_aws.errors import code_of, told_as
from totoms_aws.marks import etag_of, mark_of, marked, own_etag, unmarked
from totoms_aws.multipart import COPIED_PART, Multipart
from totoms_aws.parts import parts_of

_COPIED_WITH: Final = ("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage")
_COPY_ATTEMPTS: Final = 3


class S3CloudStorage(CloudStorage):
    """The files of an S3 bucket, which its operator made.

    What is larger than 5 MiB goes up in parts, of which at most four are in memory, whatever the size of the whole.
    """

    capabilities = frozenset({SIGNED_URLS})

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        metadata = marked(options.metadata, new_cid())
        described = {"ContentType": options.content_type, "Metadata": metadata}
        parts = parts_of(source)
        first = next(parts)
        try:
            if first.last:
                with told_as(*self._told(key)):
                    answer = self._s3.put_object(
                        **self._place(key), **first.sent, **described, **self._condition(key, options)
                    )
                return etag_of(answer, metadata)
            upload = Multipart(self._client(key), self._place(key), self._told(key))
            etag = upload.upload(chain([first], parts), described, lambda: self._condition(key, options))
            return etag_of({"ETag": etag}, metadata)
        except (PreconditionFailed, NotFound) as error:
            # The SDK asks again when no answer came; then a condition, or the upload's id, no longer holds by our own.
            found = self._found(key)
            if found and mark_of(metadata) and mark_of(found["Metadata"]) == mark_of(metadata):
                return etag_of(found, metadata)
            raise self._not_written(key, error, options, found is not None) from error.__cause__

    def _condition(self, key: str, options: WriteOptions) -> dict[str, str]:
        if options.if_absent:
            return {"IfNoneMatch": "*"}
        if options.if_match is None:
            return {}
        # S3 compares its own etag when it puts the object in place. The mark is compared before: what slips through
        # in between is a writer of the very same bytes.
        found, etag = self._found(key), own_etag(options.if_match)
        if found is None or etag is None or etag_of(found, found["Metadata"]) != options.if_match:
            raise PreconditionFailed(f"{self._called(key)} {_changed(found is not None)}.", resource=key)
        return {"IfMatch": etag}

    def _not_written(self, key: str, error: BackendError, options: WriteOptions, there: bool) -> BackendError:
        if isinstance(error, PreconditionFailed):
            how = "exists already" if options.if_absent else _changed(there)
            return PreconditionFailed(f"{self._called(key)} {how}.", resource=key)
        if options.if_match is not None and not there:  # S3 answers 404 for what was deleted
            return PreconditionFailed(f"{self._called(key)} does not exist.", resource=key)
        cause = error.__cause__
        return self._no_bucket() if isinstance(cause, ClientError) and code_of(cause) == "NoSuchBucket" else error

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        try:
            return Download(self._client(key), self._place(key), self._told(key), start, length)
        except NotFound as error:
            raise self._no_file(key) from error.__cause__

    def _stat(self, key: str) -> FileInfo:
        head = self._head(key)
        return FileInfo(
            key,
            int(head["ContentLength"]),
            head.get("ContentType", "application/octet-stream"),
            etag_of(head, head["Metadata"]),
            head["LastModified"],
            unmarked(head["Metadata"]),
        )

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        with told_as("the bucket", self.bucket_name):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket_name, Prefix=prefix, Delimiter=delimiter
            )
            for page in pages:
                keys = [found["Key"] for found in page.get("Contents", ())]
                yield from sorted(keys + [found["Prefix"] for found in page.get("CommonPrefixes", ())])

    def _copy(self, source: str, destination: str) -> str:
        for _ in range(_COPY_ATTEMPTS):
            head = self._head(source)
            try:
                return self._copy_version(source, head, destination)
            except PreconditionFailed:  # another version by now
                continue
            except NotFound as error:
                raise self._no_file(source) from error.__cause__
        raise Unavailable(f"{self._called(source)} was replaced again and again while it was copied.", resource=source)

    def _copy_version(self, source: str, head: dict[str, Any], destination: str) -> str:
        metadata, size = marked(head["Metadata"], new_cid()), int(head["ContentLength"])
        described = {name: head[name] for name in _COPIED_WITH if name in head} | {"Metadata": metadata}
        version = {"CopySource": self._place(source), "CopySourceIfMatch": head["ETag"]}
        place, told = self._place(destination), self._told(source)
        if size > COPIED_PART:
            return etag_of(
                {"ETag": Multipart(self._client(source), place, told).copy(version, size, described)}, metadata
            )
        with told_as(*told):
            answer = self._s3.copy_object(**place, **version, MetadataDirective="REPLACE", **described)
        return etag_of(answer["CopyObjectResult"], metadata)

    def _delete(self, key: str) -> None:
        try:
            with told_as(*self._told(key)):
                self._s3.delete_object(**self._place(key))
        except NotFound as error:
            raise self._no_bucket() from error.__cause__

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        operation, bound = ("get_object", {}) if method == "GET" else ("put_object", {"ContentType": content_type})
        with told_as(*self._told(key)):
            url: str = self._s3.generate_presigned_url(
                operation, Params={**self._place(key), **bound}, ExpiresIn=expires_in
            )
        return url

    # --- helpers ---

    @property
    def _s3(self) -> Any:
        return client("s3", cast(AWSConfiguration, self.environment.hyperscaler_configuration))

    def _client(self, key: str) -> Any:
        with told_as(*self._told(key)):
            return self._s3

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": key}

    def _told(self, key: str) -> tuple[str, str]:
        return f"the bucket {self.bucket_name!r} and its file", key

    def _called(self, key: str) -> str:
        return f"{key!r} in the bucket {self.bucket_name!r}"

    def _head(self, key: str) -> dict[str, Any]:
        try:
            with told_as(*self._told(key)):
                head: dict[str, Any] = self._s3.head_object(**self._place(key))
        except NotFound as error:
            raise self._no_file(key) from error.__cause__
        return head

    def _found(self, key: str) -> dict[str, Any] | None:
        try:
            return self._head(key)
        except NotFound:
            return None

    def _no_bucket(self) -> NotFound:
        return NotFound(f"There is no bucket {self.bucket_name!r}.", resource=self.bucket_name)


def _changed(there: bool) -> str:
    return "has changed" if there else "does not exist"
