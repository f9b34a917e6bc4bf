"""gueststar: a science data system for time-domain sky surveys, in a box."""

__version__ = "0.1.0"
