"""totoms on AWS: SNS and SQS, S3, Secrets Manager. Chosen by ``HYPERSCALER=aws``."""

from totoms_aws.configuration import AWSConfiguration

__all__ = ["AWSConfiguration"]
