"""From the SDK's errors to ours: one table."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    LoginError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from totoms.errors import (
    AccessDenied,
    BackendError,
    CorruptData,
    InvalidKey,
    MessageTooLarge,
    NotFound,
    PreconditionFailed,
    Unavailable,
)

_CODES: Final[dict[str, type[BackendError]]] = {
    **dict.fromkeys(
        (
            "404", "NoSuchKey", "NoSuchBucket", "NoSuchUpload", "NotFound", "NotFoundException",
            "ResourceNotFoundException", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist",
        ),
        NotFound,
    ),
    **dict.fromkeys(
        (
            "400", "401", "403", "AccessDenied", "AccessDeniedException", "AuthorizationError",
            "AuthorizationErrorException", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId",
            "InvalidClientTokenId", "InvalidIdentityToken", "InvalidSecurity", "InvalidSignatureException",
            "KMS.AccessDeniedException", "KMS.OptInRequired", "KMSAccessDenied", "KMSAccessDeniedException",
            "KmsAccessDenied", "KmsOptInRequired", "RequestExpired", "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ),
        AccessDenied,
    ),
    **dict.fromkeys(("412", "PreconditionFailed", "409", "ConditionalRequestConflict"), PreconditionFailed),
    **dict.fromkeys(("AWS.SimpleQueueService.BatchRequestTooLong", "BatchRequestTooLong"), MessageTooLarge),
    **dict.fromkeys(("KeyTooLongError",), InvalidKey),
    **dict.fromkeys(
        (
            "429", "500", "502", "503", "504", "AWS.SimpleQueueService.QueueDeletedRecently", "IDPCommunicationError",
            "InternalError", "InternalErrorException", "InternalFailure", "KMS.ThrottlingException", "KMSThrottling",
            "KmsThrottled", "QueueDeletedRecently", "OverLimit", "RequestThrottled", "RequestTimeout",
            "ServiceUnavailable", "OperationAborted", "SlowDown", "Throttled", "ThrottledException", "Throttling",
            "ThrottlingException", "TooManyRequestsException", "InternalServiceError", "InternalServiceErrorException",
        ),
        Unavailable,
    ),
    # With a status that elsewhere says that something is denied.
    **dict.fromkeys(("FilterPolicyLimitExceeded", "SubscriptionLimitExceeded"), BackendError),
}  # fmt: skip
"""The error codes of SNS, SQS, S3 and Secrets Manager that have an error of ours; they are listed with each operation
in the API references (https://docs.aws.amazon.com/)."""

_CREDENTIALS: Final = (
    NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, LoginError, ProfileNotFound, SSOError,
    TokenRetrievalError,
)  # fmt: skip
_AWAY: Final = (ConnectionError, HTTPClientError, IncompleteReadError, MetadataRetrievalError, OSError)


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the error of ours for one of the SDK's; raise it ``from`` that one.

    Args:
        error: What the SDK raised.
        what: What it is about, for a person: "the secret", "the topic".
        resource: Its name.
    """
    told = f"{what} {resource!r}"
    if isinstance(error, ClientError):
        code = code_of(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        # 400 means something only where it is all there is: S3 answers HEAD so, without a body, for an expired token.
        found = _CODES.get(code) or _CODES.get(str(status) if status != 400 else "") or BackendError
        return found(f"AWS refused what concerns {told}: {code}.", resource=resource)
    if isinstance(error, _CREDENTIALS):
        return AccessDenied(f"There are no AWS credentials for {told}: {type(error).__name__}.", resource=resource)
    if isinstance(error, FlexibleChecksumError):
        return CorruptData(f"What AWS sent of {told} does not have its checksum.", resource=resource)
    if isinstance(error, _AWAY):
        return Unavailable(f"AWS could not be asked about {told}: {type(error).__name__}.", resource=resource)
    return BackendError(f"AWS failed for {told}: {type(error).__name__}.", resource=resource)


@contextlib.contextmanager
def told_as(what: str, resource: str) -> Iterator[None]:
    """Raise what the SDK raises in the block as an error of ours; the arguments are those of `translate`."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        raise translate(error, what, resource) from error


def code_of(error: ClientError) -> str:
    """Return the error code of a refusal, as the API reference names it."""
    return str(error.response.get("Error", {}).get("Code", ""))
