"""Users and tokens, for the person who keeps the survey."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gueststar.core import times
from gueststar.model.readers import Scope
from gueststar.store.readers import ReaderStore, TokenInfo, User, checked_groups, reader_of
from gueststar.store.repo import SurveyRepo
from gueststar.store.settings import SurveySettings


@dataclass(frozen=True)
class Readers:
    """The users of one survey; every verb tells what it did in one line."""

    settings: SurveySettings
    store: ReaderStore

    def add(self, name: str, groups: Sequence[str]) -> str:
        """Add a user; ConfigError for a bad name, one that is taken, or an unknown group."""
        self.store.add(name, checked_groups(self.settings, groups))
        return self._told(self.store.user(name))

    def set_groups(self, name: str, groups: Sequence[str]) -> str:
        """Put a user into groups; ConfigError for an unknown one."""
        self.store.set_groups(name, checked_groups(self.settings, groups))
        return self._told(self.store.user(name))

    def remove(self, name: str) -> str:
        """Forget a user."""
        self.store.remove(name)
        return f"{name} is forgotten, with all tokens; gueststar user access closes the topics too"

    def new_token(self, name: str, *, scopes: Sequence[str], days: float) -> str:
        """Return a new token."""
        return self.store.new_token(name, scopes=[Scope(scope) for scope in scopes], days=days)

    def revoke(self, token_id: str) -> str:
        """End a token."""
        self.store.revoke(token_id)
        return f"token {token_id} is not valid any more"

    def lines(self) -> list[str]:
        """Return all users and tokens as lines."""
        lines = []
        for user in self.store.users():
            lines.append(self._told(user))
            lines += [f"  {_line_of(token)}" for token in self.store.tokens(user.name)]
        return lines

    def _told(self, user: User) -> str:
        programs = reader_of(self.settings, user).programs
        seen = " and ".join(["public", *(program.name.lower() for program in sorted(programs))])
        return f"{user.name}: {', '.join(user.groups) or 'in no group'}; sees {seen}"


@contextmanager
def open_readers(root: Path) -> Iterator[Readers]:
    """Open the users of the survey at ``root``."""
    with SurveyRepo.open(root) as repo:
        store = ReaderStore.of(repo.root, repo.settings.database)
        try:
            yield Readers(repo.settings, store)
        finally:
            store.close()


def _line_of(token: TokenInfo) -> str:
    scopes = ", ".join(token.scopes)
    until = times.isot_utc(token.expires_mjd_tai)[:19]
    return f"token {token.id} for {scopes}: {token.state(at_mjd_tai=times.now_mjd_tai())}, until {until} UTC"
