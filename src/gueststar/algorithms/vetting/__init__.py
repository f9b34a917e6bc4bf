"""Real or not."""
