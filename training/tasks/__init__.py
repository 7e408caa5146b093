"""Retrieval tasks: the BEIR loader and the generated household task."""
