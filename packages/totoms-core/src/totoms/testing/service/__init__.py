"""`TestMicroservice`, which runs a service in memory."""
