"""From calibration exposures to masters."""
