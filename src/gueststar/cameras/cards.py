"""The cards of one raw file, read with errors that name file, card, value and mend."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gueststar.core.errors import DataError
from gueststar.formats.raw import RawFile
from gueststar.formats.tiff import cards_of_text
from gueststar.model.header import HeaderMapping

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?")


class Card(NamedTuple):
    """A card that is present and not blank."""

    keyword: str
    value: Any


@dataclass(frozen=True)
class Cards:
    """Cards of an exposure: those of the primary header, then those of the first image extension."""

    name: str
    """The file, for messages."""
    values: Mapping[str, Any]
    numbers_as_strings: bool = False
    """Numbers written as text are converted; otherwise refused."""

    @classmethod
    def of(cls, raw: RawFile, *, numbers_as_strings: bool, mapping: HeaderMapping | None = None) -> Cards:
        """Return the cards that tell of the exposure as a whole.

        What ``mapping`` finds in the file's name and in the file beside it stands in for cards that no header has;
        DataError where the name is not as it says.
        """
        first = raw.images[0].header if raw.images else {}
        beside = {} if mapping is None else {**_cards_of_name(raw.path, mapping), **_cards_beside(raw.path, mapping)}
        return cls(str(raw.path), {**beside, **first, **_present(raw.primary)}, numbers_as_strings)

    def find(self, keywords: Sequence[str]) -> Card | None:
        """Return the first of ``keywords`` that is present and not blank."""
        for keyword in keywords:
            value = self.values.get(keyword)
            if not _is_blank(value):
                return Card(keyword, value)
        return None

    def text(self, keywords: Sequence[str]) -> str | None:
        """Return the first card present as text."""
        card = self.find(keywords)
        return None if card is None else str(card.value).strip()

    def number(self, keywords: Sequence[str]) -> float | None:
        """Return the first card present as a finite number; DataError where it is none."""
        card = self.find(keywords)
        return None if card is None else self.number_of(card)

    def number_of(self, card: Card) -> float:
        """Return a card's value as a finite number; DataError where it is none."""
        value = card.value
        if isinstance(value, str) and is_number(value):
            if not self.numbers_as_strings:
                raise DataError(
                    f"{self.name}: {card.keyword} = {value!r} is text, not a number; "
                    "if this camera writes so, set header.numbers_as_strings"
                )
            value = float(value.upper().replace("D", "E"))
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not math.isfinite(value):
            raise DataError(f"{self.name}: {card.keyword} = {value!r} is not a number")
        return float(value)

    def number_or_none(self, card: Card) -> float | None:
        """Return a card's value as a finite number, None where it is none."""
        try:
            return self.number_of(card)
        except DataError:
            return None


def _cards_of_name(path: Path, mapping: HeaderMapping) -> dict[str, Any]:
    if mapping.file_name is None:
        return {}
    match = re.search(mapping.file_name, path.name)
    if match is None:
        raise DataError(f"{path} is not named as header.file_name says ({mapping.file_name!r})")
    return {name.upper(): value for name, value in match.groupdict().items() if value is not None}


def _cards_beside(path: Path, mapping: HeaderMapping) -> dict[str, Any]:
    if mapping.sidecar is None:
        return {}
    stem = path.name.split(".")[0]
    beside = path.with_name(f"{stem}{mapping.sidecar}")
    try:
        return cards_of_text(beside.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: {beside.name} beside it cannot be read ({error}); header.sidecar asks for it"
        ) from None


def is_number(text: str) -> bool:
    """Return whether a text is one decimal number."""
    return _NUMBER.fullmatch(text.strip()) is not None


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _present(cards: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cards.items() if not _is_blank(value)}
