"""Nights of raw exposures with truth."""
