"""Files on Amazon S3."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, BinaryIO, Final, Literal, cast
from urllib.parse import urlencode

from botocore.exceptions import BotoCoreError, ClientError

from totoms.errors import BackendError, NotFound, PreconditionFailed
from totoms.plugin import MAX_METADATA_BYTES, SIGNED_URLS, CloudStorage, FileInfo, WriteOptions, new_cid
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import code_of, mapped_errors
from totoms_aws.storage.download import Download
from totoms_aws.storage.signing import sign
from totoms_aws.storage.upload import COPIED_PART, Multipart, parts_of, repeat_on_conflict

_COPIED: Final = (
    "ContentType",
    "CacheControl",
    "ContentDisposition",
    "ContentEncoding",
    "ContentLanguage",
    "StorageClass",
    "ServerSideEncryption",
    "SSEKMSKeyId",
    "BucketKeyEnabled",
    "WebsiteRedirectLocation",
)
"""What S3 would replace by the bucket's defaults. It copies tags itself, but not those of copies in parts
(https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html)."""
_MARK: Final = "totoms-write"
"""Metadata that differs with every write: S3's etag is the same for the same bytes. Users' names have no hyphen."""
_MARKED_ETAG: Final = re.compile(r"(.+)\.([0-9a-f]{32})")
_ETAG: Final = re.compile(r"[!#-~]{1,1024}")
_looked_for: Final[set[str]] = set()


class S3CloudStorage(CloudStorage):
    """Stores files in an S3 bucket, which must exist.

    Files larger than 5 MiB are uploaded in parts. At most four parts are in memory, however large the file is.
    """

    capabilities = frozenset({SIGNED_URLS})

    def _write(self, key: str, source: BinaryIO, options: WriteOptions) -> str:
        metadata = _marked(options.metadata)
        described = {"ContentType": options.content_type, "Metadata": metadata}
        parts = parts_of(source)
        first = next(parts)
        try:
            if first.last:
                with mapped_errors(*self._about(key)):
                    answer = repeat_on_conflict(
                        lambda: self._s3.put_object(
                            **self._place(key), **first.sent, **described, **self._condition(key, options)
                        )
                    )
                return _etag_of(answer, metadata)
            upload = Multipart(self._client(key), self._place(key), self._about(key))
            etag = upload.upload(chain([first], parts), described, lambda: self._condition(key, options))
            return _etag_of({"ETag": etag}, metadata)
        except (PreconditionFailed, NotFound) as error:
            # The SDK repeats a request whose answer was lost. The first one may have written the file, so that the
            # condition no longer holds, or may have completed the upload.
            found = self._found(key)
            if found and _MARK in metadata and found["Metadata"].get(_MARK) == metadata[_MARK]:
                return _etag_of(found, metadata)
            raise self._not_written(key, error, options, found is not None) from error.__cause__

    def _condition(self, key: str, options: WriteOptions) -> dict[str, str]:
        if options.if_absent:
            return {"IfNoneMatch": "*"}
        if options.if_match is None:
            return {}
        # S3 compares its own etag when the object appears. The mark is compared before that: only a writer of the same
        # bytes can get in between.
        found, etag = self._found(key), _s3_etag(options.if_match)
        if found is None or etag is None or _etag_of(found, found["Metadata"]) != options.if_match:
            raise PreconditionFailed(f"{self._label(key)} {_changed(found is not None)}.", resource=key)
        return {"IfMatch": etag}

    def _not_written(self, key: str, error: BackendError, options: WriteOptions, there: bool) -> BackendError:
        if isinstance(error, PreconditionFailed):
            how = "exists already" if options.if_absent else _changed(there)
            return PreconditionFailed(f"{self._label(key)} {how}.", resource=key)
        if options.if_match is not None and not there:  # S3 answers 404 for a deleted one
            return PreconditionFailed(f"{self._label(key)} does not exist.", resource=key)
        cause = error.__cause__
        return self._no_bucket() if isinstance(cause, ClientError) and code_of(cause) == "NoSuchBucket" else error

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        try:
            return Download(self._client(key), self._place(key), self._about(key), start, length)
        except NotFound as error:
            if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) == "NoSuchBucket":
                self._warn_no_bucket()
            raise self._no_file(key) from error.__cause__

    def _stat(self, key: str) -> FileInfo:
        head = self._head(key)
        return FileInfo(
            key,
            int(head["ContentLength"]),
            head.get("ContentType", "application/octet-stream"),
            _etag_of(head, head["Metadata"]),
            head["LastModified"],
            _unmarked(head["Metadata"]),
        )

    def _list(self, prefix: str, delimiter: str) -> Iterator[str]:
        with mapped_errors("the bucket", self.bucket_name):
            pages = self._s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket_name, Prefix=prefix, Delimiter=delimiter
            )
            for page in pages:
                keys = [found["Key"] for found in page.get("Contents", ())]
                yield from sorted(keys + [found["Prefix"] for found in page.get("CommonPrefixes", ())])

    def _copy(self, source: str, destination: str) -> str:
        def copy(head: dict[str, Any]) -> str:
            try:
                return self._copy_version(source, head, destination)
            except NotFound as error:
                raise self._no_file(source) from error.__cause__

        return self._copy_unchanged(source, self._head, copy, PreconditionFailed)

    def _copy_version(self, source: str, head: dict[str, Any], destination: str) -> str:
        metadata, size = _marked(head["Metadata"]), int(head["ContentLength"])
        described = {name: head[name] for name in _COPIED if name in head} | {"Metadata": metadata}
        version = {"CopySource": self._place(source), "CopySourceIfMatch": head["ETag"]}
        place, about = self._place(destination), self._about(source)
        with mapped_errors(*about):
            if size <= COPIED_PART:
                answer = self._s3.copy_object(**place, **version, MetadataDirective="REPLACE", **described)
                return _etag_of(answer["CopyObjectResult"], metadata)
            upload = Multipart(self._s3, place, about)
        etag = upload.copy(version, size, described | self._tagging(source))
        return _etag_of({"ETag": etag}, metadata)

    def _tagging(self, key: str) -> dict[str, str]:
        with mapped_errors(*self._about(key)):
            tags = self._s3.get_object_tagging(**self._place(key))["TagSet"]
        return {"Tagging": urlencode({tag["Key"]: tag["Value"] for tag in tags})} if tags else {}

    def _delete(self, key: str) -> None:
        try:
            with mapped_errors(*self._about(key)):
                self._s3.delete_object(**self._place(key))
        except NotFound as error:
            raise self._no_bucket() from error.__cause__

    def _signed_url(self, key: str, method: Literal["GET", "PUT"], expires_in: int, content_type: str) -> str:
        operation, bound = ("get_object", {}) if method == "GET" else ("put_object", {"ContentType": content_type})
        with mapped_errors(*self._about(key)):
            return sign(self._settings, operation, {**self._place(key), **bound}, expires_in)

    # --- helpers ---

    @property
    def _settings(self) -> AWSConfiguration:
        return cast(AWSConfiguration, self.environment.hyperscaler_configuration)

    @property
    def _s3(self) -> Any:
        return client("s3", self._settings)

    def _client(self, key: str) -> Any:
        with mapped_errors(*self._about(key)):
            return self._s3

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket_name, "Key": key}

    def _head(self, key: str) -> dict[str, Any]:
        try:
            with mapped_errors(*self._about(key)):
                head: dict[str, Any] = self._s3.head_object(**self._place(key))
        except NotFound as error:
            self._look_for_bucket()
            raise self._no_file(key) from error.__cause__
        return head

    def _look_for_bucket(self) -> None:
        # The answer to HEAD has no code. One request for each bucket and process finds out which of the two is missing.
        if self.bucket_name in _looked_for:
            return
        _looked_for.add(self.bucket_name)
        try:
            self._s3.head_bucket(Bucket=self.bucket_name)
        except ClientError as error:
            if code_of(error) in ("404", "NoSuchBucket"):
                self._warn_no_bucket()
        except BotoCoreError:  # this is only for the log
            _looked_for.discard(self.bucket_name)

    def _found(self, key: str) -> dict[str, Any] | None:
        try:
            return self._head(key)
        except NotFound:
            return None


def _changed(there: bool) -> str:
    return "has changed" if there else "does not exist"


# --- etags that change with every write ---


def _marked(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata to store, with a new mark if it fits into the 2 KB that S3 allows."""
    kept, mark = _unmarked(metadata), new_cid()
    size = sum(len(name) + len(value) for name, value in kept.items())
    return kept if size + len(_MARK) + len(mark) > MAX_METADATA_BYTES else {**kept, _MARK: mark}


def _unmarked(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name != _MARK}


def _etag_of(answer: Mapping[str, Any], metadata: Mapping[str, str]) -> str:
    """Return the etag for users: S3's, and the mark, which objects of other programs lack."""
    etag, mark = str(answer["ETag"]).strip('"'), metadata.get(_MARK)
    return f"{etag}.{mark}" if mark else etag


def _s3_etag(etag: str) -> str | None:
    """Return S3's part of an etag, as in its headers; None for what cannot be one."""
    if not _ETAG.fullmatch(etag):
        return None
    found = _MARKED_ETAG.fullmatch(etag)
    return f'"{found[1] if found else etag}"'
