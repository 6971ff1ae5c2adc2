"""What to extract, and the shapes of what Quarry makes.

Imports only pydantic, pyarrow and the standard library; nothing from ``extractors`` or ``flows``.
"""
