"""Things that move."""
