"""The certificates that SNS signs its messages with: where they may come from, fetched once, kept while they are valid.

As for AWS's own libraries the chain of trust is that of the connection: the certificate comes over verified TLS from
SNS of the topic's region, and is made out to SNS.
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html
"""

from __future__ import annotations

import asyncio
import functools
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import NameOID

from totoms.errors import Unavailable, Undecidable
from totoms_aws.fetching import https_get
from totoms_aws.names import TopicArn
from totoms_aws.workers import SETTLING

_PATH: Final = r"/SimpleNotificationService-[0-9a-f]{1,128}\.pem"
# "sns.amazonaws.com"; for some regions "sns-signing.<region>...", "sns.<region>..." or "sns-<region>...".
_SIGNER: Final = re.compile(r"sns(-[a-z0-9-]+)?(\.[a-z0-9-]+)?\.amazonaws\.com(\.cn)?")
_MOST_KEPT: Final = 16
_MOST_REFUSED: Final = 1024
_MOST_FETCHED: Final = 4
"""At a time: who pushes names the URL, and the threads are those that leases are renewed in."""
_COOLDOWN: Final = 5.0
"""Seconds after a failure before it is fetched again; before anything is, when SNS was out of reach."""
_PATIENCE: Final = 10.0
_FEWEST_BITS: Final = 2048

_Kept = tuple[RSAPublicKey, datetime, datetime]
"""The key of a certificate, and since and until when that is valid."""


def is_genuine(url: str, topic: TopicArn) -> bool:
    """Tell whether a certificate for messages of a topic may come from there: SNS of its own region, to the letter."""
    return _genuine(topic.region, topic.partition).fullmatch(url) is not None


@functools.lru_cache
def _genuine(region: str, partition: str) -> re.Pattern[str]:
    host = rf"sns\.{re.escape(region)}\.amazonaws\.com{'[.]cn' if partition == 'aws-cn' else ''}"
    return re.compile(rf"https://{host}{_PATH}")


class Certificates:
    """Fetches certificates off the event loop, each once for all who wait, and keeps a few.

    Args:
        fetch: GETs a URL, in a thread, and returns the body.
        clock: Seconds, monotonic.
    """

    def __init__(self, fetch: Callable[[str], bytes] = https_get, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._away = float("-inf")
        self._refused: OrderedDict[str, float] = OrderedDict()

    def kept(self, url: str) -> RSAPublicKey | None:
        """Return the public key of the certificate at `url`; None where it is not here, or no longer valid."""
        kept = self._kept.get(url)
        if kept is None:
            return None
        key, since, until = kept
        if not since <= datetime.now(UTC) <= until:
            return None
        self._kept.move_to_end(url)
        return key

    async def key_of(self, url: str) -> RSAPublicKey:
        """Return the public key of the certificate at `url`, which `is_genuine`.

        Raises:
            Undecidable: It is out of reach, or no valid certificate of SNS's.
        """
        found = self.kept(url)
        if found is not None:
            return found
        task = self._fetching.get(url)
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            failed = max(self._away, self._refused.get(url, self._away))
            if self._clock() < failed + _COOLDOWN or len(self._fetching) >= _MOST_FETCHED:
                raise Undecidable("SNS's certificate could not be fetched.", retry_after=int(_COOLDOWN))
            task = self._fetching[url] = asyncio.create_task(self._get(url))
            task.add_done_callback(lambda _: self._fetching.pop(url, None))
        await asyncio.shield(task)
        found = self.kept(url)
        if found is None:
            raise Undecidable("SNS's certificate could not be fetched.", retry_after=int(_COOLDOWN))
        return found

    async def _get(self, url: str) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                pem = await SETTLING.run(self._fetch, url)
            kept = _read(pem)
        except (Unavailable, ValueError):
            # It was answered, but with no certificate of SNS's. Held against others, one forged URL kept them all away.
            self._refused[url] = self._clock()
            self._refused.move_to_end(url)
            while len(self._refused) > _MOST_REFUSED:
                self._refused.popitem(last=False)
        except Exception:  # whatever it was: what it would prove stays unproven
            self._away = self._clock()
        else:
            self._refused.pop(url, None)
            self._kept[url] = kept
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)


def _read(pem: bytes) -> _Kept:
    certificate = x509.load_pem_x509_certificate(pem)
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < _FEWEST_BITS:
        raise ValueError("not a key that SNS signs with")
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not since <= datetime.now(UTC) <= until:
        raise ValueError("not valid now")
    if not any(_SIGNER.fullmatch(name) for name in _names(certificate)):
        raise ValueError("made out to somebody else")
    return key, since, until


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
