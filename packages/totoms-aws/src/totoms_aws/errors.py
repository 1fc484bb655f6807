"""Maps the SDK's errors to those of totoms, by one table."""

from __future__ import annotations

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
from totoms.plugin import error_mapping

CONFLICT: Final = "ConditionalRequestConflict"
"""Another request for the same object was in progress, so S3 did not check the condition: try again
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html#conditional-error-response)."""
_CODES: Final[dict[type[BackendError], str]] = {
    NotFound: """
        404 NoSuchKey NoSuchBucket NoSuchUpload NotFound NotFoundException ResourceNotFoundException
        AWS.SimpleQueueService.NonExistentQueue QueueDoesNotExist""",
    AccessDenied: """
        400 401 403 AccessDenied AccessDeniedException AuthorizationError AuthorizationErrorException ExpiredToken
        ExpiredTokenException InvalidAccessKeyId InvalidClientTokenId InvalidIdentityToken InvalidSecurity
        InvalidSignatureException KMS.AccessDeniedException KMS.OptInRequired KMSAccessDenied KMSAccessDeniedException
        KmsAccessDenied KmsOptInRequired RequestExpired SignatureDoesNotMatch UnrecognizedClientException""",
    PreconditionFailed: "412 PreconditionFailed",
    MessageTooLarge: "AWS.SimpleQueueService.BatchRequestTooLong BatchRequestTooLong",
    InvalidKey: "KeyTooLongError",
    Unavailable: f"""
        409 429 500 502 503 504 {CONFLICT} AWS.SimpleQueueService.QueueDeletedRecently IDPCommunicationError
        InternalError InternalErrorException InternalFailure InternalServiceError InternalServiceErrorException
        KMS.ThrottlingException KMSThrottling KmsThrottled OperationAborted OverLimit QueueDeletedRecently
        RequestThrottled RequestTimeout ServiceUnavailable SlowDown Throttled ThrottledException Throttling
        ThrottlingException TooManyRequestsException""",
    # These come with a status that means "denied" elsewhere.
    BackendError: "FilterPolicyLimitExceeded SubscriptionLimitExceeded",
}
"""Error codes of SNS, SQS, S3 and Secrets Manager, as the API references list them for each operation
(https://docs.aws.amazon.com/), and HTTP statuses for answers without a code."""
_ERRORS: Final = {code: error for error, codes in _CODES.items() for code in codes.split()}
_NO_CREDENTIALS: Final = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    LoginError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_UNREACHABLE: Final = (ConnectionError, HTTPClientError, IncompleteReadError, MetadataRetrievalError, OSError)


def translate(error: Exception, what: str, resource: str) -> BackendError:
    """Return the error of totoms for one of the SDK's; raise it ``from`` that one.

    Args:
        error: What the SDK raised.
        what: The kind of thing concerned, for a person: "the secret", "the topic".
        resource: Its name.
    """
    name = f"{what} {resource!r}"
    if isinstance(error, ClientError):
        code = code_of(error)
        status = status_of(error)
        # 400 alone means "denied" only without a code: S3 answers HEAD so, without a body, for an expired token.
        found = _ERRORS.get(code) or _ERRORS.get(str(status) if status != 400 else "") or BackendError
        return found(f"AWS rejected the request for {name}: {code}.", resource=resource)
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(f"There are no AWS credentials for {name}: {type(error).__name__}.", resource=resource)
    if isinstance(error, FlexibleChecksumError):
        return CorruptData(f"The content that AWS sent for {name} does not match its checksum.", resource=resource)
    if isinstance(error, _UNREACHABLE):
        return Unavailable(f"AWS cannot be reached for {name}: {type(error).__name__}.", resource=resource)
    return BackendError(f"The request to AWS for {name} failed: {type(error).__name__}.", resource=resource)


mapped_errors = error_mapping(translate)
"""Raises the SDK's errors of its block as those of totoms. The arguments are those of `translate`."""


def code_of(error: ClientError) -> str:
    """Return the code of an error, as the API reference lists it."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """Return the HTTP status of an error; 0 if it is unknown."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
