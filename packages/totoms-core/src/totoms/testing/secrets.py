"""The contract of the secrets: behaviours 47 to 52."""

from __future__ import annotations

from totoms.testing.secrets_cache import SecretsCaching
from totoms.testing.secrets_canary import SecretsCanary
from totoms.testing.secrets_reading import SecretsReading


class SecretsManagerContract(SecretsReading, SecretsCaching, SecretsCanary):
    """What a `SecretsManager` does. Provide the fixture ``harness``, a `SecretsManagerHarness`.

    Declare in `capabilities`:

    - ``versions``: an older version of a secret can be asked for; else that is Unsupported;
    - ``cache``: what was read is remembered (`cache_seconds` is not 0); else the store is asked each time.
    """
