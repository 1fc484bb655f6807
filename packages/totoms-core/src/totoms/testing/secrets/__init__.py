"""The contract tests of the secrets."""
