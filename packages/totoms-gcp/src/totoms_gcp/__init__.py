"""totoms on Google Cloud: Pub/Sub, Cloud Storage, Secret Manager. Chosen by ``HYPERSCALER=gcp``."""
