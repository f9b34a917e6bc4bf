"""One file copied so that the copy is known to be good: read back from the disk and compared."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from gueststar.core.errors import DataError, TransientError
from gueststar.formats.atomic import appearing_whole

_PIECE = 1 << 20
_AWAY = {errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.ENODEV, errno.ENXIO, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NoRoom(TransientError):
    """A disk is full."""


class Identity(NamedTuple):
    """What changes when a file does; the system sets ``ctime_ns``, nobody can set it back."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def identity_of(path: Path) -> Identity:
    """Return the identity of a file, not following a link."""
    found = path.lstat()
    return Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def digest_on_disk(path: Path) -> str:
    """Return the SHA-256 of a file as the disk holds it, as far as the system lets pages be forgotten."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest


def copy_verified(source: Path, target: Path, *, sha256: str | None = None) -> str:
    """Copy a file, read the copy back, and only then give it its name; return the SHA-256.

    Raises DataError where the source is not what ``sha256`` (or its beginning) says, TransientError where it changed
    meanwhile, the copy is not what was written, or a disk takes or gives nothing. ``target`` appears whole or not.
    """
    try:
        with appearing_whole(target) as temporary:
            before = source.stat()
            digest = _copy(source, temporary)
            after = source.stat()
            if (before.st_ino, before.st_size, before.st_mtime_ns) != (after.st_ino, after.st_size, after.st_mtime_ns):
                raise TransientError(f"{source} changed while it was copied")
            if sha256 is not None and not digest.startswith(sha256):
                raise DataError(f"{source} is damaged: its SHA-256 begins with {digest[:12]}, not {sha256[:12]}")
            if digest_on_disk(temporary) != digest:
                raise TransientError(f"the disk of {target.parent} does not give back what was written to it")
        _sync_folder(target.parent)
    except OSError as problem:
        raise told_as_away(problem, target) from problem
    return digest


def told_as_away(problem: OSError, path: Path) -> TransientError:
    """Return the error that says what a disk did not do."""
    if problem.errno in _FULL:
        return NoRoom(f"the disk of {path} is full: {problem.strerror}")
    what = "takes or gives nothing" if problem.errno in _AWAY else "does not work"
    return TransientError(f"the disk of {path} {what}: {problem.strerror or problem}")


def _copy(source: Path, target: Path) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while piece := reader.read(_PIECE):
            digest.update(piece)
            writer.write(piece)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:  # some network file systems know no such thing
        if problem.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
