"""The contract of the secrets: behaviours 47 to 52."""

from __future__ import annotations

from totoms.testing.secrets.cache import SecretsCaching
from totoms.testing.secrets.canary import SecretsCanary
from totoms.testing.secrets.reading import SecretsReading


class SecretsManagerContract(SecretsReading, SecretsCaching, SecretsCanary):
    """The behaviours of a `SecretsManager`. Provide the fixture ``harness``, a `SecretsManagerHarness`.

    Declare in `capabilities`:

    - ``versions``: an older version of a secret can be read; otherwise that raises `Unsupported`;
    - ``cache``: values are cached (`cache_seconds` is not 0); otherwise each read fetches.
    """
