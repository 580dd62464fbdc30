"""Formats of comparison tables: each maps a Comparison to a string."""
