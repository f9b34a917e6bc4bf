"""Users of a survey, their groups and their tokens; of a token only a salted hash is stored.

A token is ``gst_<number>_<secret>``: the number finds its row, the secret (256 random bits) is what is checked. It is
shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from sqlalchemy import Column, Double, Engine, LargeBinary, String, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gueststar.core import times
from gueststar.core.errors import AccessDenied, ConfigError, OutOfScope
from gueststar.model.readers import ANONYMOUS, OPERATOR, Reader, Scope, Sight
from gueststar.model.rights import Program
from gueststar.store.settings import SurveySettings, rights_policy
from gueststar.store.sql import connect, database_url, reading, transaction

FILE_NAME = "readers.sqlite3"
"""Name of the SQLite file in a repository; only the operator may read it."""

RESERVED = frozenset({ANONYMOUS.name, OPERATOR.name, "public", "all", "gueststar", "admin"})
"""Names that mean something else."""

METADATA = sqlalchemy.MetaData()

USERS = Table(
    "reader",
    METADATA,
    Column("name", String, primary_key=True),
    Column("groups", String, nullable=False, doc="names, separated by commas"),
    Column("mjd_tai", Double, nullable=False, doc="when the user was added"),
)

TOKENS = Table(
    "reader_token",
    METADATA,
    Column("id", String, primary_key=True),
    Column("reader", String, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False, doc="scrypt of the secret"),
    Column("scopes", String, nullable=False, doc="names, separated by commas"),
    Column("made_mjd_tai", Double, nullable=False),
    Column("expires_mjd_tai", Double, nullable=False),
    Column("revoked_mjd_tai", Double),
)

_NAME = re.compile(r"[a-z][a-z0-9._]{1,62}[a-z0-9]")
"""No hyphen: on Kafka it ends the name at the beginning of a consumer group's."""
_TOKEN = re.compile(r"gst_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_COST = {"n": 1 << 14, "r": 8, "p": 1, "maxmem": 1 << 26}
"""Of scrypt: 16 MB and some 50 ms for each try (RFC 7914)."""


@dataclass(frozen=True)
class User:
    """A user as stored."""

    name: str
    groups: tuple[str, ...]
    mjd_tai: float
    """When the user was added, MJD TAI."""


@dataclass(frozen=True)
class TokenInfo:
    """What is known of a token; not its secret."""

    id: str
    reader: str
    scopes: tuple[Scope, ...]
    made_mjd_tai: float
    expires_mjd_tai: float
    revoked_mjd_tai: float | None

    def state(self, *, at_mjd_tai: float) -> str:
        """Return valid, expired or revoked."""
        if self.revoked_mjd_tai is not None:
            return "revoked"
        return "valid" if at_mjd_tai < self.expires_mjd_tai else "expired"


class ReaderStore:
    """The users in the database at ``url``."""

    def __init__(self, url: str) -> None:
        self._engine: Engine = connect(url)
        self._reader = reading(self._engine)
        with transaction(self._engine) as connection:
            METADATA.create_all(connection)

    @classmethod
    def of(cls, root: Path, database: str | None) -> ReaderStore:
        """Return the store of a survey: in its database server, or a file in the repository that others cannot read."""
        return cls(database_url(database, root / FILE_NAME))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    # Users

    def add(self, name: str, groups: Collection[str]) -> None:
        """Add a user; ConfigError for a name that is taken or cannot be one."""
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise ConfigError(
                f"{name!r} cannot be a user's name: 3 to 64 of a-z, 0-9, '.', '_', a letter first; "
                f"not {', '.join(sorted(RESERVED))}"
            )
        row = {"name": name, "groups": _joined(groups), "mjd_tai": times.now_mjd_tai()}
        try:
            with transaction(self._engine) as connection:
                connection.execute(insert(USERS).values(row))
        except IntegrityError:
            raise ConfigError(
                f"there is a user {name} already: gueststar user groups changes what it may see"
            ) from None

    def set_groups(self, name: str, groups: Collection[str]) -> None:
        """Put a user into these groups and no others, at once; ConfigError if there is no such user."""
        with transaction(self._engine) as connection:
            change = update(USERS).where(USERS.c.name == name).values(groups=_joined(groups))
            if connection.execute(change).rowcount == 0:
                raise self._unknown(name)

    def users(self) -> list[User]:
        """Return all users by name."""
        with transaction(self._reader) as connection:
            return [_user_of(row) for row in connection.execute(select(USERS).order_by(USERS.c.name))]

    def user(self, name: str) -> User:
        """Return a user; ConfigError if there is none of this name."""
        with transaction(self._reader) as connection:
            row = connection.execute(select(USERS).where(USERS.c.name == name)).first()
        if row is None:
            raise self._unknown(name)
        return _user_of(row)

    def remove(self, name: str) -> None:
        """Forget a user and all its tokens; ConfigError if there is no such user."""
        with transaction(self._engine) as connection:
            connection.execute(delete(TOKENS).where(TOKENS.c.reader == name))
            if connection.execute(delete(USERS).where(USERS.c.name == name)).rowcount == 0:
                raise self._unknown(name)

    @staticmethod
    def _unknown(name: str) -> ConfigError:
        return ConfigError(f"there is no user {name}: gueststar user list shows those that are, user add makes one")

    # Tokens

    def new_token(self, name: str, *, scopes: Collection[Scope], days: float) -> str:
        """Make a token of a user and return it: nobody can be shown it again."""
        self.user(name)
        now = times.now_mjd_tai()
        number, secret, salt = secrets.token_hex(8), secrets.token_urlsafe(32), secrets.token_bytes(16)
        row = {
            "id": number, "reader": name, "salt": salt, "hash": _hashed(secret, salt), "scopes": _joined(scopes),
            "made_mjd_tai": now, "expires_mjd_tai": now + days,
        }  # fmt: skip
        with transaction(self._engine) as connection:
            connection.execute(insert(TOKENS).values(row))
        return f"gst_{number}_{secret}"

    def tokens(self, name: str | None = None) -> list[TokenInfo]:
        """Return what is known of tokens, of one user or all, oldest first."""
        query = select(TOKENS).order_by(TOKENS.c.reader, TOKENS.c.made_mjd_tai)
        with transaction(self._reader) as connection:
            rows = connection.execute(query if name is None else query.where(TOKENS.c.reader == name)).all()
        return [_token_of(row) for row in rows]

    def revoke(self, token_id: str) -> None:
        """End a token; ConfigError if there is none of this number."""
        change = update(TOKENS).where(TOKENS.c.id == token_id, TOKENS.c.revoked_mjd_tai.is_(None))
        with transaction(self._engine) as connection:
            if connection.execute(change.values(revoked_mjd_tai=times.now_mjd_tai())).rowcount == 0:
                raise ConfigError(f"there is no token {token_id} that could be revoked: gueststar user list")

    def authenticate(self, token: str, *, scope: Scope, at_mjd_tai: float) -> User:
        """Return whose token it is; AccessDenied for one that is not good for this now."""
        return self.holder(self.verified(token), scope=scope, at_mjd_tai=at_mjd_tai)

    def verified(self, token: str) -> str:
        """Return the number of a token whose secret is right, whatever it is good for; AccessDenied if it is not.

        A token that is not known takes as long to refuse as one with a wrong secret.
        """
        match = _TOKEN.fullmatch(token)
        number, secret = match.groups() if match else ("", token[:64])
        with transaction(self._reader) as connection:
            row = connection.execute(select(TOKENS).where(TOKENS.c.id == number)).first()
        salt, expected = (b"no such token...", b"") if row is None else (bytes(row.salt), bytes(row.hash))
        if not secrets.compare_digest(_hashed(secret, salt), expected):
            raise AccessDenied("the token is not valid")
        return str(number)

    def holder(self, token_id: str, *, scope: Scope, at_mjd_tai: float) -> User:
        """Return the user of a token; AccessDenied if it has ended, or is not good for a scope."""
        with transaction(self._reader) as connection:
            row = connection.execute(select(TOKENS).where(TOKENS.c.id == token_id)).first()
            user = None if row is None else connection.execute(select(USERS).where(USERS.c.name == row.reader)).first()
        if row is None or user is None or _token_of(row).state(at_mjd_tai=at_mjd_tai) != "valid":
            raise AccessDenied("the token is not valid")
        if scope not in _token_of(row).scopes:
            raise OutOfScope(f"the token is not good for {scope}")
        return _user_of(user)


def reader_of(settings: SurveySettings, user: User) -> Reader:
    """Return a user as a reader; groups that survey.yaml no longer names open nothing."""
    names = {name for group in user.groups for name in settings.groups.get(group, ())}
    return Reader(user.name, frozenset(Program[name.upper()] for name in names))


def reader_named(root: Path, settings: SurveySettings, name: str) -> Reader:
    """Return the reader of a name: a user of the survey, ``anonymous`` or ``operator``; ConfigError for others."""
    if name in (ANONYMOUS.name, "public"):
        return ANONYMOUS
    if name == OPERATOR.name:
        return OPERATOR
    store = ReaderStore.of(root, settings.database)
    try:
        return reader_of(settings, store.user(name))
    finally:
        store.close()


def sight_of(settings: SurveySettings, reader: Reader, *, at_mjd_tai: float | None = None) -> Sight:
    """Return what a reader may see of a survey, now or at a moment (MJD TAI)."""
    return Sight(reader, rights_policy(settings), times.now_mjd_tai() if at_mjd_tai is None else at_mjd_tai)


def checked_groups(settings: SurveySettings, groups: Sequence[str]) -> tuple[str, ...]:
    """Return group names; ConfigError for one that survey.yaml does not name."""
    if unknown := [group for group in groups if group not in settings.groups]:
        raise ConfigError(f"there is no group {unknown[0]}: survey.yaml names {', '.join(settings.groups) or 'none'}")
    return tuple(dict.fromkeys(groups))


def _hashed(secret: str, salt: bytes) -> bytes:
    return hashlib.scrypt(secret.encode(), salt=salt, dklen=32, **_COST)


def _joined(names: Collection[str]) -> str:
    return ",".join(sorted({str(name) for name in names}))


def _split(names: str) -> tuple[str, ...]:
    return tuple(name for name in names.split(",") if name)


def _user_of(row: sqlalchemy.Row[tuple[object, ...]]) -> User:
    return User(row.name, _split(row.groups), row.mjd_tai)


def _token_of(row: sqlalchemy.Row[tuple[object, ...]]) -> TokenInfo:
    scopes = tuple(Scope(name) for name in _split(row.scopes))
    return TokenInfo(row.id, row.reader, scopes, row.made_mjd_tai, row.expires_mjd_tai, row.revoked_mjd_tai)
