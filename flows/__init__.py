"""The shell: Prefect flows, artifacts, the command line. Imports nothing heavy by itself."""
