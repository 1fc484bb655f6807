"""totoms on NATS: messages on JetStream, files in its object store, secrets in its key-value store."""
