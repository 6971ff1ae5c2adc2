"""Texts as vectors and in order: embeddings and re-ranking through the API, kept and reused by content."""
