"""Files on Cloud Storage."""
