"""Objects put together on S3 from parts: uploads of unknown length, and copies of large objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final

from totoms_aws.errors import told_as
from totoms_aws.parts import CHECKSUM, Part

AT_ONCE: Final = 3
"""Parts in memory: while one is read, the others are under way."""
COPIED_PART: Final = 512 * 1024 * 1024
_MOST_PARTS: Final = 10_000

Senders = Iterable[Callable[[str, int], dict[str, Any]]]
"""What sends each part, given the upload's id and the part's number, and returns what AWS answers."""
Condition = Callable[[], dict[str, str]]


class Multipart:
    """One multipart upload: all of it takes effect at its end, or nothing.

    Args:
        s3: The client.
        place: ``Bucket`` and ``Key``.
        told: How errors name the object: arguments of `told_as`.
    """

    def __init__(self, s3: Any, place: dict[str, str], told: tuple[str, str]) -> None:
        self._s3, self._place, self._told = s3, place, told

    def upload(self, parts: Iterable[Part], described: dict[str, Any], condition: Condition) -> str:
        """Upload parts, and return S3's etag.

        Args:
            parts: The parts, in order.
            described: Arguments of the object that it becomes.
            condition: Gives the arguments for what must hold when it takes effect; asked just before that.
        """

        def sender(part: Part) -> Callable[[str, int], dict[str, Any]]:
            def send(upload: str, number: int) -> dict[str, Any]:
                with part:
                    answer: dict[str, Any] = self._s3.upload_part(
                        **self._place, UploadId=upload, PartNumber=number, **part.sent
                    )
                return answer

            return send

        return self._run(map(sender, parts), {**described, "ChecksumAlgorithm": CHECKSUM}, condition)

    def copy(self, source: dict[str, str], size: int, described: dict[str, Any]) -> str:
        """Have S3 copy an object of `size` bytes by parts, and return its etag.

        Args:
            source: ``CopySource`` and ``CopySourceIfMatch``.
            size: Its bytes.
            described: Arguments of the object that it becomes.
        """
        length = max(COPIED_PART, -(-size // _MOST_PARTS))

        def sender(start: int) -> Callable[[str, int], dict[str, Any]]:
            span = f"bytes={start}-{min(start + length, size) - 1}"

            def send(upload: str, number: int) -> dict[str, Any]:
                answer = self._s3.upload_part_copy(
                    **self._place, **source, UploadId=upload, PartNumber=number, CopySourceRange=span
                )
                copied: dict[str, Any] = answer["CopyPartResult"]
                return copied

            return send

        return self._run(map(sender, range(0, size, length)), described, dict)

    def _run(self, parts: Senders, described: dict[str, Any], condition: Condition) -> str:
        with told_as(*self._told):
            upload: str = self._s3.create_multipart_upload(**self._place, **described)["UploadId"]
        try:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="totoms-aws-part") as pool:
                done = self._send(pool, parts, upload)
            conditions = condition()
            with told_as(*self._told):
                finished = self._s3.complete_multipart_upload(
                    **self._place, UploadId=upload, MultipartUpload={"Parts": done}, **conditions
                )
            etag: str = finished["ETag"]
            return etag
        except BaseException:
            # No part is under way any more, so nothing is left that would be paid for.
            with contextlib.suppress(Exception):
                self._s3.abort_multipart_upload(**self._place, UploadId=upload)
            raise

    def _send(self, pool: ThreadPoolExecutor, parts: Senders, upload: str) -> list[dict[str, Any]]:
        under_way: set[Future[dict[str, Any]]] = set()
        all_of_them: list[Future[dict[str, Any]]] = []
        try:
            for number, send in enumerate(parts, 1):
                started = pool.submit(send, upload, number)
                all_of_them.append(started)
                under_way.add(started)
                if len(under_way) >= AT_ONCE:
                    ended, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for one in ended:
                        self._answer(one)
            answers = [self._answer(one) for one in all_of_them]
        finally:
            for one in under_way:
                one.cancel()
        return [_described(number, answer) for number, answer in enumerate(answers, 1)]

    def _answer(self, sent: Future[dict[str, Any]]) -> dict[str, Any]:
        with told_as(*self._told):
            return sent.result()


def _described(number: int, answer: dict[str, Any]) -> dict[str, Any]:
    # Checksums of parts belong into the end of an upload that was begun with an algorithm, where the store knows it.
    checksums = {name: value for name, value in answer.items() if name == f"Checksum{CHECKSUM}"}
    return {"PartNumber": number, "ETag": answer["ETag"], **checksums}
