"""Which detections are the same thing."""
