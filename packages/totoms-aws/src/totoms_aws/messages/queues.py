"""Queues of SQS: found, created, and written to. Everything here may block: call it in a thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from botocore.exceptions import ClientError

from totoms.errors import BackendError, LeaseLost, MessageTooLarge, NotFound, Unavailable
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import code_of, mapped_errors, translate
from totoms_aws.messages.encoding import size_of
from totoms_aws.messages.naming import is_fifo, is_url

MAX_ENTRIES: Final = 10
MAX_BYTES: Final = 256 * 1024
"""Limit of one request to SNS (https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html); SQS takes more."""
RETENTION_SECONDS: Final = 14 * 24 * 3600
"""Retention of the queues that are created here: the longest that SQS allows."""
_EXISTS: Final = ("QueueAlreadyExists", "QueueNameExists")
_LOST: Final = ("ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight", "InvalidIdFormat")
_MAX_REMEMBERED: Final = 10_000
_NEW_QUEUE_PATIENCE: Final = 5.0
_NEW_QUEUE_PAUSE: Final = 0.25

Entry = dict[str, Any]
"""A message, or a receipt, of a request about several, without its id there."""
Results = list[BackendError | None]
QueueAttributes = dict[str, str]
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue of SQS, by its name, or its URL if the service names it so."""

    name: str
    url: str

    @property
    def fifo(self) -> bool:
        """Whether it keeps order."""
        return is_fifo(self.name)


class Queues:
    """The queues of one bus.

    Args:
        settings: The region.
    """

    def __init__(self, settings: AWSConfiguration) -> None:
        self._settings = settings
        self._known: dict[str, Queue] = {}
        self._lock = threading.Lock()

    @property
    def sqs(self) -> Any:
        """The SDK's client."""
        return client("sqs", self._settings)

    def find(self, name: str) -> Queue | None:
        """Return the queue of a name or URL; None if there is none of that name."""
        if is_url(name):
            return Queue(name, name)
        found = self._known.get(name)
        if found is None:
            try:
                with mapped_errors("the queue", name):
                    found = self._remember(name, self.sqs.get_queue_url(QueueName=name)["QueueUrl"])
            except NotFound:
                return None
        return found

    def names(self) -> list[str]:
        """Return the names of all queues of the account in the region.

        Raises:
            AccessDenied: Without the right ``sqs:ListQueues``.
        """
        with mapped_errors("the queues of", self._settings.region):
            pages = self.sqs.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 1000})
            return [url.rpartition("/")[2] for page in pages for url in page.get("QueueUrls") or ()]

    def create(self, name: str, attributes: QueueAttributes) -> Queue:
        """Create a queue, or find one that another process has just created."""
        given = {"MessageRetentionPeriod": str(RETENTION_SECONDS), **attributes}
        if is_fifo(name):
            given["FifoQueue"] = "true"
        with mapped_errors("the queue", name):
            try:
                url = self.sqs.create_queue(QueueName=name, Attributes=given)["QueueUrl"]
            except ClientError as error:
                if code_of(error) not in _EXISTS:
                    raise
                url = self.sqs.get_queue_url(QueueName=name)["QueueUrl"]
        self._wait_for(Queue(name, url))
        return self._remember(name, url)

    def find_or_create(self, name: str) -> Queue:
        """Return a queue, which is created when it is first used."""
        known = self._known.get(name)
        if known is not None:
            return known
        with self._lock:
            return self.find(name) or self.create(name, {})

    def attributes_of(self, queue: Queue | None, *more: str) -> QueueAttributes:
        """Return the ARN, policy and redrive policy of a queue, and `more` attributes; none if there is no queue."""
        if queue is None:
            return {}
        with mapped_errors("the queue", queue.name):
            names = ["QueueArn", "Policy", "RedrivePolicy", *more]
            answer = self.sqs.get_queue_attributes(QueueUrl=queue.url, AttributeNames=names)
        found: QueueAttributes = answer.get("Attributes") or {}
        return found

    def set_attributes(self, queue: Queue, attributes: QueueAttributes) -> None:
        """Change attributes of a queue."""
        with mapped_errors("the queue", queue.name):
            self.sqs.set_queue_attributes(QueueUrl=queue.url, Attributes=attributes)

    def send(self, queue: Queue, entries: Sequence[Entry]) -> Results:
        """Write messages to a queue, in as many requests as their sizes need. Raises nothing.

        Args:
            queue: Where to.
            entries: Of ``SendMessageBatch``.

        Returns:
            A result for each message.
        """
        results: Results = []
        for pack in _packed(entries):
            results += send_together(
                lambda numbered: self.sqs.send_message_batch(QueueUrl=queue.url, Entries=numbered),
                lambda entry: self.sqs.send_message(QueueUrl=queue.url, **entry),
                pack,
                ("the queue", queue.name),
            )
        if any(isinstance(result, NotFound) for result in results):
            self.forget(queue)
        return results

    def forget(self, queue: Queue) -> None:
        """Look a queue up when it is next used, because it was deleted."""
        self._known.pop(queue.name, None)

    def delete(self, queue: Queue, receipts: Sequence[str]) -> Results:
        """Delete messages that were received. Raises nothing.

        Returns:
            A result for each receipt, LeaseLost for one that is not valid any more.
        """
        return self._settle(
            queue, lambda entries: self.sqs.delete_message_batch(QueueUrl=queue.url, Entries=entries), receipts
        )

    def hide(self, queue: Queue, receipts: Sequence[str], seconds: int) -> Results:
        """Hide messages that were received for `seconds` from now; otherwise as `delete`."""

        def change(entries: list[Entry]) -> dict[str, Any]:
            changes = [{**entry, "VisibilityTimeout": seconds} for entry in entries]
            answer: dict[str, Any] = self.sqs.change_message_visibility_batch(QueueUrl=queue.url, Entries=changes)
            return answer

        return self._settle(queue, change, receipts)

    def _settle(
        self, queue: Queue, request: Callable[[list[Entry]], dict[str, Any]], receipts: Sequence[str]
    ) -> Results:
        about, results = ("the queue", queue.name), Results()
        for some in tens(receipts):
            try:
                with mapped_errors(*about):
                    answer = request([{"Id": str(number), "ReceiptHandle": one} for number, one in enumerate(some)])
                    answered = results_of(answer, len(some), about)
            except BackendError as error:
                answered, answer = [error] * len(some), {}
            for entry in answer.get("Failed") or ():
                if str(entry["Code"]).rpartition(".")[2] in _LOST:
                    answered[int(entry["Id"])] = LeaseLost("The receipt is not valid any more.", resource=queue.name)
            results += answered
        return results

    def _remember(self, name: str, url: str) -> Queue:
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        found = self._known[name] = Queue(name, url)
        return found

    def _wait_for(self, queue: Queue) -> None:
        # "After you create a queue, you must wait at least one second": as much of that as it takes to find it.
        end = time.monotonic() + _NEW_QUEUE_PATIENCE
        while True:
            try:
                self.attributes_of(queue)
                return
            except NotFound:
                if time.monotonic() > end:
                    raise
                time.sleep(_NEW_QUEUE_PAUSE)
            except BackendError:  # not allowed to look; the first use will show it
                return


def send_together(
    send: Callable[[list[Entry]], dict[str, Any]],
    send_one: Callable[[Entry], Any],
    entries: Sequence[Entry],
    about: tuple[str, str],
) -> Results:
    """Send entries in one request, and return a result for each. Raises nothing.

    Args:
        send: The SDK's operation for several.
        send_one: The SDK's operation for one.
        entries: Without ids.
        about: What errors name: arguments of `translate`.
    """
    try:
        if len(entries) == 1:
            send_one(entries[0])
            return [None]
        answer = send([{"Id": str(number), **entry} for number, entry in enumerate(entries)])
    except Exception as error:
        if len(entries) > 1 and type(translate(error, *about)) in (BackendError, MessageTooLarge):
            # AWS refuses all for one that is wrong: send each alone.
            return [send_together(send, send_one, [entry], about)[0] for entry in entries]
        return [_caused(translate(error, *about), error)] * len(entries)
    results = results_of(answer, len(entries), about)
    for number, (entry, result) in enumerate(zip(entries, results, strict=True)):
        # The SDK retries a message that AWS could not take just now if it is alone, but not in a batch. In a group
        # with an order this would come too late: those behind it were taken.
        if isinstance(result, Unavailable) and result.__cause__ is not None and "MessageGroupId" not in entry:
            (results[number],) = send_together(send, send_one, [entry], about)
    return results


def results_of(answer: dict[str, Any], number: int, about: tuple[str, str]) -> Results:
    """Return the result of each entry of a batch, whose ids are their numbers."""
    results: Results = [
        Unavailable(f"The answer of AWS for {about[0]} {about[1]!r} does not mention this entry.", resource=about[1])
    ] * number
    for entry in answer.get("Successful") or ():
        results[int(entry["Id"])] = None
    for entry in answer.get("Failed") or ():
        failure = ClientError({"Error": {"Code": entry["Code"]}, "ResponseMetadata": {}}, "Batch")  # type: ignore[typeddict-item]
        results[int(entry["Id"])] = _caused(translate(failure, *about), failure)
    return results


def tens(items: Sequence[_Item]) -> list[Sequence[_Item]]:
    """Split items into as few parts as one request takes."""
    return [items[start : start + MAX_ENTRIES] for start in range(0, len(items), MAX_ENTRIES)]


def redrive_policy(dead_arn: str, receives: int) -> str:
    """Return the redrive policy with which SQS moves a message to `dead_arn` after so many receives."""
    return json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": str(receives)})


def redrive_of(attributes: QueueAttributes) -> tuple[str, int]:
    """Return the ARN of a queue's dead-letter queue, and the number of receives; "" if there is none."""
    try:
        policy = json.loads(attributes.get("RedrivePolicy") or "{}")
        return str(policy["deadLetterTargetArn"]), int(policy["maxReceiveCount"])
    except (ValueError, KeyError, TypeError):
        return "", 0


def _packed(entries: Sequence[Entry]) -> list[list[Entry]]:
    packs: list[list[Entry]] = []
    size = 0
    for entry in entries:
        one = size_of(entry["MessageBody"], entry["MessageAttributes"])
        if not packs or len(packs[-1]) == MAX_ENTRIES or size + one > MAX_BYTES:
            packs.append([])
            size = 0
        packs[-1].append(entry)
        size += one
    return packs


def _caused(error: BackendError, cause: BaseException | None) -> BackendError:
    error.__cause__ = cause
    return error
