"""The store: parts, journals, commits, the plan, the catalog."""
