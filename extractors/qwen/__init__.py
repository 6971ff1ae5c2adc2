"""Talking to Qwen: requests and replies, wire formats, transport, the embedded server."""
