"""When the frames at hand do not show an effect."""

from __future__ import annotations


class NotShown(Exception):
    """The frames do not show the effect, or not clearly: no product is made, and that is no failure."""
