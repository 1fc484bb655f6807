"""Files in the object store."""
