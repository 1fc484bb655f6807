"""From the SDK's errors to ours: one table."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from totoms.errors import (
    AccessDenied,
    BackendError,
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
            "401", "403", "AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException",
            "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId",
            "InvalidSignatureException", "KMSAccessDenied", "KMSAccessDeniedException", "RequestExpired",
            "SignatureDoesNotMatch", "UnrecognizedClientException",
        ),
        AccessDenied,
    ),
    **dict.fromkeys(("412", "PreconditionFailed", "409", "ConditionalRequestConflict"), PreconditionFailed),
    **dict.fromkeys(("AWS.SimpleQueueService.BatchRequestTooLong", "BatchRequestTooLong"), MessageTooLarge),
    **dict.fromkeys(("KeyTooLongError",), InvalidKey),
    **dict.fromkeys(
        (
            "429", "500", "502", "503", "504", "InternalError", "InternalErrorException", "InternalFailure",
            "KMSThrottling", "KmsThrottled", "OverLimit", "RequestThrottled", "RequestTimeout", "ServiceUnavailable",
            "SlowDown", "Throttled", "ThrottledException", "Throttling", "ThrottlingException",
            "TooManyRequestsException", "InternalServiceError", "InternalServiceErrorException",
        ),
        Unavailable,
    ),
}  # fmt: skip
"""The error codes of SNS, SQS, S3 and Secrets Manager that have an error of ours; they are listed with each operation
in the API references (https://docs.aws.amazon.com/)."""

_CREDENTIALS: Final = (
    NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound, TokenRetrievalError,
    UnauthorizedSSOTokenError,
)  # fmt: skip


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
        found = _CODES.get(code) or _CODES.get(str(status), BackendError)
        return found(f"AWS refused what concerns {told}: {code}.", resource=resource)
    if isinstance(error, _CREDENTIALS):
        return AccessDenied(f"There are no AWS credentials for {told}: {type(error).__name__}.", resource=resource)
    if isinstance(error, (BotoCoreError, OSError)):
        return Unavailable(f"AWS could not be asked about {told}: {type(error).__name__}.", resource=resource)
    return BackendError(f"AWS failed for {told}: {type(error).__name__}.", resource=resource)


def code_of(error: ClientError) -> str:
    """Return the error code of a refusal, as the API reference names it."""
    return str(error.response.get("Error", {}).get("Code", ""))
