"""Difference imaging: reference on science pixels, subtraction, detection, vetting."""
