"""The contract tests of the storage."""
