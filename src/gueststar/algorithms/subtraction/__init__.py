"""Science minus reference."""
