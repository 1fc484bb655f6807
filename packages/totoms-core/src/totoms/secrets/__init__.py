"""Read and cache secrets."""

from totoms.secrets.manager import SecretsManager as SecretsManager
