"""Errors, named by who can mend them."""

from __future__ import annotations


class GueststarError(Exception):
    """An expected failure; its message names the thing, the value and the mend in one line."""


class DataError(GueststarError):
    """These pixels (or this file) cannot be used: the unit is skipped, flagged and accounted for."""


class ConfigError(GueststarError):
    """A person must change something: stop, and name the key."""


class AccessDenied(ConfigError):
    """Somebody may not do or see this; the message tells no more than that."""


class OutOfScope(AccessDenied):
    """Who asks is known, and may not do or see this."""


class TransientError(GueststarError):
    """The world failed (disk, network, database): the same call may succeed later."""


class ServiceDown(TransientError):
    """Something that the whole run needs (its database, the disk below it) does not work now: the run waits."""


class MissingInput(GueststarError):
    """Something this unit needs is not there yet (catalog, calibration, reference): it is held, not failed."""


class OutOfTurn(TransientError):
    """Something that must come before this is still on its way: wait for it, then try again."""
