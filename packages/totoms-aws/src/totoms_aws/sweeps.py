"""Going through a dead-letter queue. SQS cannot be looked at without receiving, which hides from others what is there.

Everything here may block: call it in a thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Final

from totoms.errors import BackendError
from totoms_aws.batches import MOST_ENTRIES, Entry
from totoms_aws.errors import told_as
from totoms_aws.queues import Queues, results_of

_HIDDEN_SECONDS: Final = 60
_MOST_KNOWN: Final = 100
"""Batches in a row of what was seen before. In a long sweep the first are seen again before it has got to the last."""

Message = dict[str, Any]


class Sweep:
    """Receives each message of a queue once. In the end of the ``with`` those that were not deleted are seen again.

    Args:
        queues: Whom to ask.
        name: The queue.
        url: Its URL.
    """

    def __init__(self, queues: Queues, name: str, url: str) -> None:
        self._sqs = queues.sqs
        self._name = name
        self._url = url
        self._seen: set[str] = set()
        self._hidden: dict[str, str] = {}  # the receipts alone: there may be many letters, and large ones

    def __enter__(self) -> Sweep:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        receipts = list(self._hidden.values())
        with contextlib.suppress(BackendError):  # the work is done, or has failed; they are seen again in a minute
            for start in range(0, len(receipts), MOST_ENTRIES):
                entries = _entries(receipts[start : start + MOST_ENTRIES], {"VisibilityTimeout": 0})
                with told_as("the queue", self._name):
                    self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    def batches(self) -> Iterator[list[Message]]:
        """Receive until nothing comes, or only what was seen before."""
        known = 0  # batches in a row
        while known < _MOST_KNOWN:
            with told_as("the queue", self._name):
                answer = self._sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=MOST_ENTRIES,
                    WaitTimeSeconds=1,  # with no wait SQS asks some of its servers only
                    VisibilityTimeout=_HIDDEN_SECONDS,
                    MessageAttributeNames=["All"],
                    MessageSystemAttributeNames=["SentTimestamp", "MessageGroupId"],
                )
            came: Sequence[Message] = answer.get("Messages") or ()
            new = [message for message in came if message["MessageId"] not in self._seen]
            for message in came:
                self._seen.add(message["MessageId"])
                self._hidden[message["MessageId"]] = message["ReceiptHandle"]
            known = 0 if new else known + 1
            if new:
                yield new
            elif not came:
                return

    def delete(self, messages: Sequence[Message]) -> None:
        """Delete messages that were received.

        Raises:
            BackendError: Some are still there.
        """
        told = ("the queue", self._name)
        for start in range(0, len(messages), MOST_ENTRIES):
            some = messages[start : start + MOST_ENTRIES]
            entries = _entries([str(message["ReceiptHandle"]) for message in some])
            with told_as(*told):
                answer = self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
            for message, error in zip(some, results_of(answer, len(some), told), strict=True):
                if error is not None:
                    raise error
                self._hidden.pop(message["MessageId"], None)


def _entries(receipts: Sequence[str], extra: Entry | None = None) -> list[Entry]:
    return [{"Id": str(number), "ReceiptHandle": receipt, **(extra or {})} for number, receipt in enumerate(receipts)]
