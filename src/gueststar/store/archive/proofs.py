"""Whether a file may leave the repository's disk: only with the proof that its bytes lie elsewhere."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from gueststar.core.errors import DataError
from gueststar.store.archive.archive import Archive
from gueststar.store.archive.copying import Identity, digest_on_disk, identity_of


@dataclass(frozen=True)
class Proof:
    """A file and its archived copy: two files of the same bytes, both read when this was made."""

    file: str
    """Relative to the repository."""
    size: int
    sha256: str
    """Of both."""
    archive: str
    """The copy, absolute."""
    verified: float
    """Unix time."""
    file_identity: Identity
    copy_identity: Identity


def prove(archive: Archive, file: str, *, now: float) -> Proof | str:
    """Read a file and its archived copy, and return the proof that they are the same; else why there is none."""
    path, entry = archive.repo.root / file, archive.entry_of(file)
    if entry is None:
        return "it is not in the archive's manifest"
    copy = archive.root / entry.archive
    try:
        if problem := _not_two_files(archive, path, copy):
            return problem
        before = identity_of(path), identity_of(copy)
        digests = digest_on_disk(path), digest_on_disk(copy)
        if digests[0] != entry.sha256:
            return f"it is not what was archived: SHA-256 {digests[0][:12]}, not {entry.sha256[:12]}"
        if digests[1] != entry.sha256:
            return f"its copy {entry.archive} is damaged: SHA-256 {digests[1][:12]}, not {entry.sha256[:12]}"
        if (identity_of(path), identity_of(copy)) != before:
            return "it changed while it was read"
    except OSError as problem_of_disk:
        return f"it or its copy cannot be read: {problem_of_disk.strerror or problem_of_disk}"
    return Proof(file, before[0].size, entry.sha256, str(copy.absolute()), now, *before)


def put_out(root: Path, proof: Proof) -> None:
    """Put a link to the archived copy in the place of a file, in one step: nobody ever finds nothing there.

    Raises DataError where the file or its copy is not what it was when the proof was made; then nothing is done.
    """
    path, copy = root / proof.file, Path(proof.archive)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        temporary.symlink_to(copy)
        _check_unchanged(path, proof.file_identity)
        _check_unchanged(copy, proof.copy_identity)
        os.replace(temporary, path)
    except OSError as problem:
        raise DataError(f"{proof.file} stays: {problem.strerror or problem}") from problem
    finally:
        temporary.unlink(missing_ok=True)


def is_put_out(root: Path, proof: Proof) -> bool:
    """Return whether a file is a link to its copy already."""
    path = root / proof.file
    return path.is_symlink() and os.readlink(path) == proof.archive


def _not_two_files(archive: Archive, path: Path, copy: Path) -> str:
    """Return why two paths are not two files of one content's length, each on its own side; empty if they are."""
    ours, theirs = archive.repo.root.resolve(), archive.root.resolve()
    for one, side, name in ((path, ours, "it"), (copy, theirs, "its copy")):
        if not one.is_symlink() and not one.exists():
            return f"{name} is gone"
        if not stat.S_ISREG(one.lstat().st_mode):
            return f"{name} is a link, or no file"
        if side not in one.resolve().parents:
            return f"{name} lies elsewhere: {one.resolve()}"
    if path.samefile(copy):
        return "it and its copy are one file"
    if path.stat().st_size != copy.stat().st_size:
        return f"its copy has {copy.stat().st_size} bytes, it has {path.stat().st_size}"
    return ""


def _check_unchanged(path: Path, identity: Identity) -> None:
    if identity_of(path) != identity:
        raise DataError(f"{path} is not what it was when it was verified: it stays")
