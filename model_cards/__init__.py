"""Model cards: templates and their generator."""
