"""Files in Blob Storage."""
