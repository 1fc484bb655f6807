"""The contract tests of the push endpoint."""
