"""totoms on Google Cloud: Pub/Sub, Cloud Storage, Secret Manager. Chosen by ``HYPERSCALER=gcp``."""

from totoms_gcp.configuration import GCPConfiguration

__all__ = ["GCPConfiguration"]
