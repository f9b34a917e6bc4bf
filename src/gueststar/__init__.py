"""gueststar: a science data system for time-domain sky surveys, in a box."""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # nothing is written unless a command says where
