"""totoms on AWS: SNS and SQS, S3, Secrets Manager. Chosen by ``HYPERSCALER=aws``."""
