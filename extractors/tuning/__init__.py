"""Tuning an embedded model to a schema: a low-rank adapter is trained on labelled records, on this machine's CPU.

``tune`` is the door. It needs the extra ``quarry[tune]`` (JAX and optax), which nothing else imports.
"""
