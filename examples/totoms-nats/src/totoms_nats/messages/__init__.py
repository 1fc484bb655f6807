"""Messages on JetStream."""
