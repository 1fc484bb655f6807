"""Read and write files in buckets."""

from totoms.storage.storage import CloudStorage as CloudStorage
