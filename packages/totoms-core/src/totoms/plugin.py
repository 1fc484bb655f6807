"""Everything that a hyperscaler plugin imports from totoms, together with :mod:`totoms.errors`.

A plugin is a module, named by an entry point in the group ``totoms.hyperscalers``. Its hooks, marked with `hookimpl`,
return its classes. See the documentation, "Writing a plugin".
"""

from totoms.auth.jwks import download
from totoms.auth.tokens import check_times, parse_token
from totoms.auth.verifiers import GOOGLE_KEYS, OIDCTokens
from totoms.clients import ClientRegistry
from totoms.context import new_cid
from totoms.environment import TotoEnvironment
from totoms.error_mapping import error_mapping
from totoms.forks import in_forked_child
from totoms.logging.describe import printable
from totoms.logging.logger import TotoLogger
from totoms.messages.batching import Batcher
from totoms.messages.bus import MessageBus
from totoms.messages.dead_letters import (
    DeadLetter,
    DeadLetterReason,
    DeadLetterStore,
    HeldLetter,
    purge_letters,
    replay_letters,
)
from totoms.messages.driver import BACKLOG, DEAD_LETTERS, DELAY, ORDERING, PULL, PUSH, QUEUES
from totoms.messages.leases import Lease, LeasingReceiver, lease_lost
from totoms.messages.message import (
    CONTENT_TYPE,
    CONTENT_TYPE_ATTRIBUTE,
    ID_ATTRIBUTE,
    TRACEPARENT_ATTRIBUTE,
    TYPE_ATTRIBUTE,
    MessageDestination,
    TotoMessage,
)
from totoms.messages.outgoing import Outgoing
from totoms.messages.push_request import PushReply, PushRequest
from totoms.messages.receiver import Received, Receiver
from totoms.messages.subscription import Backlog, Existing, RetryPolicy, Subscription
from totoms.names import MAX_METADATA_BYTES
from totoms.plugins.configuration import HyperscalerConfiguration
from totoms.plugins.hookspecs import hookimpl
from totoms.secrets.manager import SecretsManager
from totoms.single_flight import SingleFlight
from totoms.storage.driver import SIGNED_URLS, FileInfo, WriteOptions
from totoms.storage.resuming import ResumingDownload
from totoms.storage.storage import CloudStorage
from totoms.storage.streams import ChunkReader, fill, read_chunks
from totoms.threads import Workers, run_in_thread, start_thread

__all__ = [
    "BACKLOG",
    "CONTENT_TYPE",
    "CONTENT_TYPE_ATTRIBUTE",
    "DEAD_LETTERS",
    "DELAY",
    "GOOGLE_KEYS",
    "ID_ATTRIBUTE",
    "MAX_METADATA_BYTES",
    "ORDERING",
    "PULL",
    "PUSH",
    "QUEUES",
    "SIGNED_URLS",
    "TRACEPARENT_ATTRIBUTE",
    "TYPE_ATTRIBUTE",
    "Backlog",
    "Batcher",
    "ChunkReader",
    "ClientRegistry",
    "CloudStorage",
    "DeadLetter",
    "DeadLetterReason",
    "DeadLetterStore",
    "Existing",
    "FileInfo",
    "HeldLetter",
    "HyperscalerConfiguration",
    "Lease",
    "LeasingReceiver",
    "MessageBus",
    "MessageDestination",
    "OIDCTokens",
    "Outgoing",
    "PushReply",
    "PushRequest",
    "Received",
    "Receiver",
    "ResumingDownload",
    "RetryPolicy",
    "SecretsManager",
    "SingleFlight",
    "Subscription",
    "TotoEnvironment",
    "TotoLogger",
    "TotoMessage",
    "Workers",
    "WriteOptions",
    "check_times",
    "download",
    "error_mapping",
    "fill",
    "hookimpl",
    "in_forked_child",
    "lease_lost",
    "new_cid",
    "parse_token",
    "printable",
    "purge_letters",
    "read_chunks",
    "replay_letters",
    "run_in_thread",
    "start_thread",
]
