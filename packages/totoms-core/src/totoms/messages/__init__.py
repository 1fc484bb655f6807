"""Messages: from `publish_message` to a handler, and its answer back."""
