"""Authentication: tokens, the keys that verify them, and trusted issuers."""
