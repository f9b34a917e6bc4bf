"""Copies of an alert log for others: nightly archives as surveys publish them, and Parquet. The same again is the same.

A nightly archive ``<survey>_<program>_<night>.tar.gz`` holds a night's packets of one program, one ``<candid>.avro``
each, in order of candid, without dates or owners; ``MD5SUMS`` beside it lists checksums as ``md5sum -c`` reads them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, NamedTuple

import pyarrow as pa

from gueststar.algorithms.association.sky_index import healpix_29
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.hats import describe_catalogue, divided
from gueststar.formats.packet_families import identify, leading_schemas
from gueststar.formats.packet_parquet import packet_schema, write_packets
from gueststar.formats.packets import Packet, read_packet, schema_of
from gueststar.model.rights import Program
from gueststar.store.alerts.log import AlertLog
from gueststar.store.alerts.schemas import known_schemas
from gueststar.store.alerts.segments import AlertEntry, told_when_full

SUMS = "MD5SUMS"
ROWS_A_PIXEL = 100_000
"""Rows of a file of a HATS catalogue at most."""
Form = Literal["tar", "tar.gz", "parquet"]
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Exported(NamedTuple):
    """One file that was written."""

    path: Path
    n_alerts: int


def form_of(path: Path) -> Form:
    """Return the form that a file's name asks for; ConfigError for another."""
    for ending, form in ((".tar", "tar"), (".tar.gz", "tar.gz"), (".tgz", "tar.gz"), (".parquet", "parquet")):
        if path.name.endswith(ending):
            return form  # type: ignore[return-value]
    raise ConfigError(f"{path}: its name should end with .tar, .tar.gz or .parquet; a folder gets a file a night")


def export_file(
    log: AlertLog, entries: Iterable[AlertEntry], path: Path, *, form: Form | None = None, do_cutouts: bool = False
) -> Exported:
    """Write packets to one file, by candid.

    In Parquet cut-outs are left out unless ``do_cutouts``. Raises ServiceDown where there is no room.
    """
    chosen, form = sorted(entries, key=lambda entry: entry.candid), form or form_of(path)
    with told_when_full(path.parent):
        if form == "parquet":
            return Exported(path, _write_parquet(log, chosen, path, do_cutouts=do_cutouts))
        with appearing_whole(path) as temporary, temporary.open("wb") as file:
            if form == "tar":
                write_tar(file, log, chosen)
            else:
                with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as packed:
                    write_tar(packed, log, chosen)
    return Exported(path, len(chosen))


def export_nights(
    log: AlertLog,
    entries: Iterable[AlertEntry],
    folder: Path,
    *,
    survey: str,
    form: Form = "tar.gz",
    do_cutouts: bool = False,
    tell: Callable[[Exported], None] = lambda exported: None,
) -> list[Exported]:
    """Write packets to a file for each night and program; return the files."""
    if not _NAME.fullmatch(survey):
        raise ConfigError(f"{survey!r} cannot begin a file's name: letters, digits, . _ and - only")
    nights: dict[tuple[int, int], list[AlertEntry]] = {}
    for entry in entries:
        nights.setdefault((entry.day_obs, entry.program), []).append(entry)
    done = []
    for (night, program), members in sorted(nights.items()):
        path = folder / f"{survey}_{Program(program).name.lower()}_{night}.{form}"
        done.append(export_file(log, members, path, form=form, do_cutouts=do_cutouts))
        tell(done[-1])
    _write_sums(folder, [exported.path for exported in done])
    return done


def export_hats(
    log: AlertLog, entries: Iterable[AlertEntry], folder: Path, *, name: str, rows_a_pixel: int = ROWS_A_PIXEL,
    do_cutouts: bool = False,
) -> Exported:  # fmt: skip
    """Write packets as a HATS catalogue, which LSDB opens: Parquet files by pixels of the sky.

    A pixel (nested HEALPix) is divided where it holds more than ``rows_a_pixel``. ConfigError if the folder has
    something in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty: a HATS catalogue is written into a new folder")
    chosen = sorted(entries, key=lambda entry: entry.candid)
    places = [identify(packet) for packet in packets_of(log, chosen)]
    keys = healpix_29([place.ra for place in places], [place.dec for place in places])
    schema = _columns_of(log, chosen, folder, do_cutouts=do_cutouts)
    pixels = divided(keys, rows_a_pixel)
    with told_when_full(folder.parent):
        for pixel in pixels:
            inside = sorted(pixel.rows, key=lambda row: (keys[row], chosen[row].candid))
            write_packets(folder / pixel.path, packets_of(log, [chosen[row] for row in inside]), schema)
        describe_catalogue(folder, name=name, pixels=pixels, schema=schema)
    return Exported(folder, len(chosen))


def write_tar(file: IO[bytes] | gzip.GzipFile, log: AlertLog, entries: Sequence[AlertEntry]) -> None:
    """Write packets as a tar file that depends on nothing else."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for entry in entries:
            member = tarfile.TarInfo(f"{entry.candid}.avro")
            member.size = entry.length
            archive.addfile(member, io.BytesIO(log.read(entry)))


def packets_of(log: AlertLog, entries: Iterable[AlertEntry]) -> Iterator[Packet]:
    """Yield packets decoded; DataError names one that is none."""
    schemas = known_schemas(log.folder)
    for entry in entries:
        try:
            yield read_packet(log.read(entry), schemas=schemas, leading=leading_schemas())
        except DataError as problem:
            raise DataError(f"alert {entry.candid}: {problem}") from problem


def _write_parquet(log: AlertLog, entries: Sequence[AlertEntry], path: Path, *, do_cutouts: bool) -> int:
    return write_packets(path, packets_of(log, entries), _columns_of(log, entries, path, do_cutouts=do_cutouts))


def _columns_of(log: AlertLog, entries: Sequence[AlertEntry], path: Path, *, do_cutouts: bool) -> pa.Schema:
    schemas, leading = known_schemas(log.folder), leading_schemas()
    found = {id(s): s for s in (schema_of(log.read(e), schemas=schemas, leading=leading) for e in entries)}
    if not found:
        raise ConfigError(f"there are no alerts for {path}")
    return packet_schema(list(found.values()), do_cutouts=do_cutouts)


def _write_sums(folder: Path, paths: Sequence[Path]) -> None:
    """List the checksums of files, beside those of files that were exported before."""
    if not paths:
        return
    sums = _read_sums(folder / SUMS)
    sums |= {path.name: _md5(path) for path in paths}
    with told_when_full(folder), appearing_whole(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))


def _read_sums(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text().splitlines() if line.strip())
    return {name: digest for digest, name in pairs if (path.parent / name).exists()}


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
