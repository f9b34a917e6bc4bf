"""Calibration products of a night: made from its frames, learned from its images, found for an exposure."""
