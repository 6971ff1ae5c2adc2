"""Golden sets, scores with intervals, and comparisons of two recipes on the same records."""
