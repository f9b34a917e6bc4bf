"""Schemas that an archive was given, for messages that name theirs by number (Confluent's wire format)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.atomic import appearing_whole
from gueststar.formats.packets import parsed_schema
from gueststar.formats.schema_registry import REGISTERED
from gueststar.store.alerts.log import TABLE_FOLDER, AlertLog

FOLDER = "schemas"
"""Folder of a log that holds them, ``<number>.avsc``."""


def known_schemas(log_folder: Path) -> dict[int, Any]:
    """Return the parsed schemas that a log was given, by number, besides those of our own ZTF-like streams."""
    own = {schema.id: schema.schema() for schema in REGISTERED if schema.subject.startswith("ztf")}
    given = sorted((log_folder / FOLDER).glob("*.avsc"))
    return own | {int(path.stem): parsed_schema(path.read_text()) for path in given}


def keep_schema(log: AlertLog, number: int, text: str) -> None:
    """Keep a schema with a log; ConfigError if the text is none, or another one has the number.

    The log's table is made again, for packets that could be read in part only.
    """
    try:
        parsed_schema(text)
    except DataError as problem:
        raise ConfigError(f"schema {number}: {problem}") from None
    path = log.folder / FOLDER / f"{number}.avsc"
    if path.exists():
        if json.loads(path.read_text()) != json.loads(text):
            raise ConfigError(f"{path} is another schema of number {number}")
        return
    with appearing_whole(path) as temporary:
        temporary.write_text(text)
    shutil.rmtree(log.folder / TABLE_FOLDER, ignore_errors=True)
