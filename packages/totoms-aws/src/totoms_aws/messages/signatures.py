"""Signatures of SNS: what is signed of a pushed message, and the certificates it is signed with.

As in AWS's own libraries, a certificate is trusted because of the connection that brings it: verified TLS to SNS of the
topic's region. It must also be issued to SNS.
https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message-verify-message-signature.html
"""

from __future__ import annotations

import asyncio
import binascii
import functools
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import botocore.session
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

from totoms.errors import Unavailable, Undecidable
from totoms.plugin import SingleFlight, download
from totoms_aws.clients import SETTLING
from totoms_aws.messages.naming import TopicArn

if TYPE_CHECKING:
    from cryptography import x509

NOTIFICATION: Final = "Notification"
CONFIRMATION: Final = "SubscriptionConfirmation"
_HANDSHAKE: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    NOTIFICATION: ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    CONFIRMATION: _HANDSHAKE,
    "UnsubscribeConfirmation": _HANDSHAKE,
}
_PADDING: Final = PKCS1v15()
_ALGORITHMS: Final[Mapping[str, HashAlgorithm]] = {
    "1": SHA1(),  # noqa: S303 - SNS signs with it unless the topic is set to version 2
    "2": SHA256(),
}
_PATH: Final = r"/SimpleNotificationService-[0-9a-f]{1,128}\.pem"
# "sns.amazonaws.com"; for some regions "sns-signing.<region>...", "sns.<region>..." or "sns-<region>...".
_SIGNER: Final = re.compile(r"sns(-[a-z0-9-]+)?(\.[a-z0-9-]+)?\.amazonaws\.com(\.cn)?")
_MIN_KEY_BITS: Final = 2048
_MAX_KEPT: Final = 1024
"""Certificates, and URLs of which none was fetched."""
_MAX_ASKED: Final = 256
_BURST: Final = 4
_PAUSE: Final = 5.0
"""A push names the URL before anything is verified. `_BURST` certificates are fetched at once, then one per `_PAUSE`
seconds."""
_COOLDOWN: Final = 5.0
"""Seconds after a failure until that URL is fetched again; until anything is, if SNS was out of reach."""
_PATIENCE: Final = 10.0
_FETCH_SECONDS: Final = 5.0
_MAX_CERTIFICATE_BYTES: Final = 64 * 1024

_Certificate = tuple[RSAPublicKey, datetime, datetime]
"""A certificate's key, and since and until when it is valid."""


def signed_text(message: Mapping[str, Any]) -> bytes | None:
    r"""Return what SNS signs: names and values, each on a line. None if a value is missing, or not a text.

    None also if a value other than the message has a line break. SNS sends none such; but a genuine notification with
    the id "1" and the subject "S" has the same signed text as one with the id "1\nSubject\nS" and no subject, which
    would pass for another message.
    """
    kind = message.get("Type")
    names = _SIGNED.get(kind) if isinstance(kind, str) else None
    if names is None:
        return None
    text = ""
    for name in names:
        value = message.get(name)
        if isinstance(value, str):
            if "\n" in value and name != "Message":
                return None
            text += f"{name}\n{value}\n"
        elif value is not None or name != "Subject":
            return None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def algorithm_of(version: Any) -> HashAlgorithm | None:
    """Return the hash algorithm of a version of signatures; None for an unknown version."""
    return _ALGORITHMS.get(version) if isinstance(version, str) else None


def is_signed(text: bytes, signature: str, algorithm: HashAlgorithm, key: RSAPublicKey) -> bool:
    """Return whether `signature`, in base64, is one of `text` by the owner of `key`."""
    try:
        key.verify(binascii.a2b_base64(signature, strict_mode=True), text, _PADDING, algorithm)
    except (InvalidSignature, ValueError):  # binascii.Error is one
        return False
    return True


def is_genuine(url: str, topic: TopicArn) -> bool:
    """Return whether `url` is a certificate on the exact SNS host of the topic's region."""
    return _genuine(topic.region, topic.partition).fullmatch(url) is not None


@functools.lru_cache
def _genuine(region: str, partition: str) -> re.Pattern[str]:
    host = rf"sns\.{re.escape(region)}\.amazonaws\.com{'[.]cn' if partition == 'aws-cn' else ''}"
    return re.compile(rf"https://{host}{_PATH}")


def fetch_certificate(url: str) -> bytes:
    """GET a certificate, through the SDK's proxies. Follows no redirect. It blocks: call it in a thread.

    Trusts the system's authorities and those named by ``AWS_CA_BUNDLE`` (or ``ca_bundle`` of the profile),
    ``REQUESTS_CA_BUNDLE`` and ``SSL_CERT_FILE``.

    Raises:
        Unavailable: The answer was not 200, or larger than 64 KiB.
        OSError: There was none, or it took longer than five seconds in all.
    """
    bundle = botocore.session.Session().get_config_variable("ca_bundle")
    try:
        return download(url, seconds=_FETCH_SECONDS, most_bytes=_MAX_CERTIFICATE_BYTES, trusted=bundle)
    except ValueError as error:
        raise Unavailable(f"The answer is not a certificate: {error}.", resource=url) from None


class Certificates:
    """Fetches certificates off the event loop, each once for all that wait for it, and keeps a few.

    Args:
        fetch: GETs a URL, in a thread, and returns the body; by default `fetch_certificate`.
        clock: Seconds, monotonic.
    """

    def __init__(
        self, fetch: Callable[[str], bytes] = fetch_certificate, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._certificates: OrderedDict[str, SingleFlight[_Certificate]] = OrderedDict()
        self._unreachable = float("-inf")
        self._budget = FetchBudget(clock)

    def kept(self, url: str) -> RSAPublicKey | None:
        """Return the public key of the certificate at `url`; None if it is not here, or not valid now."""
        known = self._certificates.get(url)
        if known is None or known.result is None:
            return None
        key, since, until = known.result
        if not since <= datetime.now(UTC) <= until:
            return None
        self._certificates.move_to_end(url)
        return key

    async def key_of(self, url: str) -> RSAPublicKey:
        """Return the public key of the certificate at `url`, which `is_genuine`.

        Raises:
            Undecidable: It is out of reach, or not a valid certificate of SNS.
        """
        found = self.kept(url)
        if found is None:
            known = self._certificates.get(url) or SingleFlight(failed_cooldown=_COOLDOWN, clock=self._clock)
            if known.running or self._may_fetch(url, known):
                self._certificates[url] = known
                while len(self._certificates) > _MAX_KEPT:
                    self._certificates.popitem(last=False)
                await known.attempt(lambda: self._get(url))
                found = self.kept(url)
        if found is None:
            raise Undecidable("SNS's certificate could not be fetched.", retry_after=int(_COOLDOWN))
        return found

    def _may_fetch(self, url: str, known: SingleFlight[_Certificate]) -> bool:
        if self._clock() < self._unreachable + _COOLDOWN or known.cooldown_left():
            return False
        return sum(other.running for other in self._certificates.values()) < _BURST and self._budget.take(url)

    async def _get(self, url: str) -> _Certificate:
        try:
            async with asyncio.timeout(_PATIENCE):
                pem = await SETTLING.run(self._fetch, url)
            certificate = _read(pem)
        except (Unavailable, ValueError):
            # There was an answer, but not a certificate of SNS. It says nothing about other URLs: a forged one must not
            # keep genuine ones from being fetched.
            raise
        except Exception:  # without the certificate nothing is proved
            self._unreachable = self._clock()
            raise
        self._budget.give_back()  # the URL was genuine
        return certificate


class FetchBudget:
    """Limits how many certificates are fetched, and prefers the URLs that are named most often.

    SNS signs everything with one certificate for months, while a forger has to name another URL each time, because one
    that was refused is not fetched again soon.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = float(_BURST)
        self._counted = clock()
        self._named: OrderedDict[str, int] = OrderedDict()

    def take(self, url: str) -> bool:
        """Return whether `url` may be fetched now; if so, it counts."""
        now = self._clock()
        self._left = min(self._left + (now - self._counted) / _PAUSE, float(_BURST))
        self._counted = now
        self._named[url] = named = self._named.pop(url, 0) + 1
        if len(self._named) > _MAX_ASKED:
            self._named.popitem(last=False)
        # While more than one fetch is left, no URL has to be preferred.
        if self._left < 1 or (self._left < 2 and named < max(self._named.values())):
            return False
        self._left -= 1
        del self._named[url]
        return True

    def give_back(self) -> None:
        """Do not count a fetch that brought a certificate of SNS."""
        self._left = min(self._left + 1, float(_BURST))


def _read(pem: bytes) -> _Certificate:
    from cryptography import x509  # a tenth of the plugin's import time, and only needed for pushes

    certificate = x509.load_pem_x509_certificate(pem)
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey) or key.key_size < _MIN_KEY_BITS:
        raise ValueError("The key is not one that SNS signs with.")
    since, until = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not since <= datetime.now(UTC) <= until:
        raise ValueError("The certificate is not valid now.")
    if not any(_SIGNER.fullmatch(name) for name in _names(certificate)):
        raise ValueError("The certificate is not issued to SNS.")
    return key, since, until


def _names(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        return [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
