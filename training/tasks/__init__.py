"""Scripts that write tasks."""
