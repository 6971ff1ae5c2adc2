"""The batch lane: the same extractions, driven in rounds through the provider's files and batches."""
