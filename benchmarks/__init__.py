"""Benchmarks: one script per performance claim; their numbers are in results/, their story in LOG.md."""
