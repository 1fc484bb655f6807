"""The contract tests of the message bus."""
