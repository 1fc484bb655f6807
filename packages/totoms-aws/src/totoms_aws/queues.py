"""Queues: found, made, and written to. Everything here may block: call it in a thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from botocore.exceptions import ClientError

from totoms.errors import BackendError, MessageTooLarge, NotFound, Unavailable
from totoms_aws.batches import Entry
from totoms_aws.clients import client
from totoms_aws.configuration import AWSConfiguration
from totoms_aws.errors import code_of, told_as, translate
from totoms_aws.names import is_fifo, is_url

RETENTION_SECONDS: Final = 14 * 24 * 3600
"""The longest SQS keeps a message, and so does each queue that is made here."""
_EXISTS: Final = ("QueueAlreadyExists", "QueueNameExists")
_MOST_REMEMBERED: Final = 10_000
_NEW_QUEUE_PATIENCE: Final = 5.0
_NEW_QUEUE_PAUSE: Final = 0.25

Attributes = dict[str, str]


class Queues:
    """The queues of one bus.

    Args:
        settings: The region.
    """

    def __init__(self, settings: AWSConfiguration) -> None:
        self._settings = settings
        self._urls: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def sqs(self) -> Any:
        """The SDK's client."""
        return client("sqs", self._settings)

    def url_of(self, name: str) -> str | None:
        """Return the URL of a queue, given by its name or its URL; None where there is no such queue."""
        if is_url(name):
            return name
        found = self._urls.get(name)
        if found is None:
            try:
                with told_as("the queue", name):
                    found = self._remember(name, str(self.sqs.get_queue_url(QueueName=name)["QueueUrl"]))
            except NotFound:
                return None
        return found

    def make(self, name: str, attributes: Attributes) -> str:
        """Make a queue, or find the one that somebody else was quicker to make; return its URL."""
        given = {"MessageRetentionPeriod": str(RETENTION_SECONDS), **attributes}
        if is_fifo(name):
            given["FifoQueue"] = "true"
        with told_as("the queue", name):
            try:
                url = str(self.sqs.create_queue(QueueName=name, Attributes=given)["QueueUrl"])
            except ClientError as error:
                if code_of(error) not in _EXISTS:
                    raise
                url = str(self.sqs.get_queue_url(QueueName=name)["QueueUrl"])
        self._wait_for(name, url)
        return self._remember(name, url)

    def find_or_make(self, name: str) -> str:
        """Return the URL of a queue that is made when it is first used."""
        known = self._urls.get(name)
        if known is not None:
            return known
        with self._lock:
            return self.url_of(name) or self.make(name, {})

    def attributes_of(self, name: str, url: str) -> Attributes:
        """Return what is known of a queue: its ARN, its policy, where its dead letters go."""
        with told_as("the queue", name):
            answer = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn", "Policy", "RedrivePolicy"])
        found: Attributes = answer.get("Attributes") or {}
        return found

    def set_attributes(self, name: str, url: str, attributes: Attributes) -> None:
        """Change a queue."""
        with told_as("the queue", name):
            self.sqs.set_queue_attributes(QueueUrl=url, Attributes=attributes)

    def forget(self, name: str) -> None:
        """Look a queue up again when it is needed next."""
        self._urls.pop(name, None)

    def send(self, name: str, url: str, entries: Sequence[Entry]) -> list[BackendError | None]:
        """Write messages to a queue: at most ten, of the size of a request. Raises nothing.

        Args:
            name: How errors call the queue.
            url: Its URL.
            entries: Of ``SendMessageBatch``, without ids.
        """
        results = in_one_request(
            lambda numbered: self.sqs.send_message_batch(QueueUrl=url, Entries=numbered),
            lambda entry: self.sqs.send_message(QueueUrl=url, **entry), entries, ("the queue", name),
        )  # fmt: skip
        if any(isinstance(result, NotFound) for result in results):
            self.forget(name)
        return results

    def _remember(self, name: str, url: str) -> str:
        if len(self._urls) >= _MOST_REMEMBERED:
            self._urls.clear()
        self._urls[name] = url
        return url

    def _wait_for(self, name: str, url: str) -> None:
        # "After you create a queue, you must wait at least one second": of that, what it takes until it is known.
        end = time.monotonic() + _NEW_QUEUE_PATIENCE
        while True:
            try:
                self.attributes_of(name, url)
                return
            except NotFound:
                if time.monotonic() > end:
                    raise
                time.sleep(_NEW_QUEUE_PAUSE)
            except BackendError:  # not allowed to look: whoever uses it will see
                return


def in_one_request(
    send: Callable[[list[Entry]], dict[str, Any]],
    send_one: Callable[[Entry], Any],
    entries: Sequence[Entry],
    told: tuple[str, str],
) -> list[BackendError | None]:
    """Send entries together, and tell what became of each. Raises nothing.

    Args:
        send: The SDK's operation for several.
        send_one: The SDK's operation for one.
        entries: Without ids.
        told: How errors name where they go: arguments of `translate`.
    """
    try:
        if len(entries) == 1:
            send_one(entries[0])
            return [None]
        answer = send([{"Id": str(number), **entry} for number, entry in enumerate(entries)])
    except Exception as error:
        if len(entries) > 1 and type(translate(error, *told)) in (BackendError, MessageTooLarge):
            # One that AWS finds wrong has all refused: each for itself, then.
            return [in_one_request(send, send_one, [entry], told)[0] for entry in entries]
        return [_caused(translate(error, *told), error) for _ in entries]
    results = results_of(answer, len(entries), told)
    for number, (entry, result) in enumerate(zip(entries, results, strict=True)):
        # What AWS could not take just now the SDK tries again when it is alone, but not in a batch. Where there is an
        # order, those behind it are there already.
        if isinstance(result, Unavailable) and result.__cause__ is not None and "MessageGroupId" not in entry:
            (results[number],) = in_one_request(send, send_one, [entry], told)
    return results


def results_of(answer: dict[str, Any], number: int, told: tuple[str, str]) -> list[BackendError | None]:
    """Return the result of each entry of a batch, whose ids are their numbers."""
    results: list[BackendError | None] = [
        Unavailable(f"AWS did not say what became of it: {told[0]} {told[1]!r}.", resource=told[1])
    ] * number
    for entry in answer.get("Successful") or ():
        results[int(entry["Id"])] = None
    for entry in answer.get("Failed") or ():
        refusal = ClientError({"Error": {"Code": entry["Code"]}, "ResponseMetadata": {}}, "Batch")  # type: ignore[typeddict-item]
        results[int(entry["Id"])] = _caused(translate(refusal, *told), refusal)
    return results


def for_each(error: BackendError, number: int) -> list[BackendError | None]:
    """Return the error that several messages met, once for each: each is raised somewhere else."""
    return [_caused(type(error)(error.message, resource=error.resource), error.__cause__) for _ in range(number)]


def _caused(error: BackendError, cause: BaseException | None) -> BackendError:
    error.__cause__ = cause
    return error


def redrive(dead_arn: str, most_receives: int) -> str:
    """Return the attribute ``RedrivePolicy``."""
    return json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": str(most_receives)})


def redriven_to(attributes: Attributes) -> tuple[str, int]:
    """Return the ARN of the queue that dead letters go to, and after how many receives; "" where there is none."""
    try:
        policy = json.loads(attributes.get("RedrivePolicy") or "{}")
        return str(policy["deadLetterTargetArn"]), int(policy["maxReceiveCount"])
    except (ValueError, KeyError, TypeError):
        return "", 0
