"""Files on S3."""
