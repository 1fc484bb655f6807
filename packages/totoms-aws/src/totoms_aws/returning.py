"""Giving back what was received and not handled.

SQS counts every receive, also of a message that is given back unhandled, and has nothing to take that back. So such a
message is put into the queue anew, with the attempts that it had, and only then deleted where it was. If we end between
the two it is there twice, which at least once allows. Where that could change an order, or a copy is refused, it is
made visible again as it is, and an attempt is counted.

Everything here may block: call it in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from totoms.envelope import Received
from totoms.messages import ID_ATTRIBUTE
from totoms_aws.batches import Entry, packed
from totoms_aws.errors import told_as
from totoms_aws.forms import MOST_ATTRIBUTES, Attributes, size_of, to_attributes
from totoms_aws.leases import COUNTED, Lease, receipts, tens
from totoms_aws.queues import Queues
from totoms_aws.sources import Source


def give_back(queues: Queues, batch: Sequence[Received]) -> None:
    """Have messages delivered again at once, as if they had not been delivered."""
    held = [one for one in batch if not one.lease.settled and time.monotonic() < one.lease.until]
    for source in {one.lease.source for one in held}:
        mine = [one for one in held if one.lease.source == source]
        copied = _copy(queues, source, [one for one in mine if not source.fifo or one.lease.group == one.message_id])
        _delete(queues, source, copied)
        _show(queues, source, [one for one in mine if not one.lease.settled])


def named(attributes: Attributes, message_id: str) -> Attributes:
    """Return attributes that say the message's id, where there is room: a copy has another id at SQS."""
    if ID_ATTRIBUTE in attributes or len(attributes) >= MOST_ATTRIBUTES:
        return attributes
    return {**attributes, **to_attributes({ID_ATTRIBUTE: message_id})}


def _copy(queues: Queues, source: Source, batch: Sequence[Received]) -> list[Received]:
    entries = [_copy_of(one) for one in batch]
    copied: list[Received] = []
    for pack in packed([size_of(entry["MessageBody"], entry["MessageAttributes"]) for entry in entries]):
        results = queues.send(source.name, source.url, [entries[number] for number in pack])
        copied += [batch[number] for number, result in zip(pack, results, strict=True) if result is None]
    return copied


def _copy_of(received: Received) -> Entry:
    lease: Lease = received.lease
    attributes = lease.attributes
    if received.attempt > 1:
        attributes |= to_attributes({COUNTED: str(received.attempt - 1)})
    if lease.source.raw:
        attributes = named(attributes, received.message_id)
    entry: Entry = {"MessageBody": lease.message["Body"], "MessageAttributes": attributes}
    if lease.source.fifo:
        again = f"{lease.message['MessageId']}-{received.attempt}"
        return {**entry, "MessageGroupId": lease.group, "MessageDeduplicationId": again}
    return {**entry, "DelaySeconds": 0}  # whatever the queue's own delay


def _delete(queues: Queues, source: Source, batch: Sequence[Received]) -> None:
    for some in tens(batch):
        with told_as("the queue", source.name):
            queues.sqs.delete_message_batch(QueueUrl=source.url, Entries=receipts(some))
        for one in some:
            one.lease.settled = True


def _show(queues: Queues, source: Source, batch: Sequence[Received]) -> None:
    for some in tens(batch):
        with told_as("the queue", source.name):
            queues.sqs.change_message_visibility_batch(
                QueueUrl=source.url, Entries=receipts(some, {"VisibilityTimeout": 0})
            )
        for one in some:
            one.lease.settled = True
