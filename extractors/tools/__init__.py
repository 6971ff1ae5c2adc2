"""Look-ups during extraction: functions that the model may call before it answers. See ``docs/tools.md``."""
