"""Errors by who can fix them, named bits, identifiers and times."""
