"""The option by which a command gives only what a reader may see, and what the older ``--program`` means beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gueststar.core.errors import ConfigError
from gueststar.model.readers import ANONYMOUS, PacketNights, Reader
from gueststar.model.rights import Program

if TYPE_CHECKING:
    from gueststar.store.settings import SurveySettings

STREAMS: dict[str, tuple[Program, ...]] = {
    "public": (Program.PUBLIC,),
    "partnership": (Program.PARTNERSHIP,),
    "private": (Program.PRIVATE,),
    "all": (Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE),
}


def as_reader(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option ``--as``; ``default`` says in its help whose eyes are taken without it."""
    return click.option(
        "--as", "as_reader", metavar="READER",
        help=f"Give what this user may see (or: anonymous, operator); default: {default}.",
    )  # fmt: skip


def packet_nights(root: Path, settings: SurveySettings, program: str | None, reader: str | None) -> PacketNights:
    """Return which packets of a survey a command may take.

    Those that ``reader`` may take, of one ``program`` if it is told. Without a reader they are those of the program:
    the operator's choice; with neither they are those of everybody.
    """
    from gueststar.store.readers import reader_named, sight_of

    if reader is None and program is not None:
        return PacketNights.of_programs(STREAMS[program])
    who = ANONYMOUS if reader is None else reader_named(root, settings, reader)
    nights = sight_of(settings, who).packet_nights()
    return nights if program is None else nights.within(STREAMS[program])


def reader_of(programs: Sequence[str], reader: str | None, *, otherwise: Reader) -> Reader | str:
    """Return the reader that options name; ConfigError where both a reader and programs are told."""
    if reader is not None and programs:
        raise ConfigError("--as and --program both say whose eyes to take: give one of them")
    if programs:
        return Reader.of_programs([Program[name.upper()] for name in programs])
    return otherwise if reader is None else reader
