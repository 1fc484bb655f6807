"""Messages by SNS and SQS."""
