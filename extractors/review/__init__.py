"""Triage: what a person should look at, and what they decide about it."""
