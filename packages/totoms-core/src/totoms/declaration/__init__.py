"""The declaration of a service: its endpoints, topics, handlers and limits."""
