"""Logins of readers, where the brokers want them."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from gueststar.core.errors import ConfigError
from gueststar.store.settings import StreamSettings
from gueststar.stream.broker import ADMIN
from gueststar.stream.clients import client_options, error_of
from gueststar.stream.topics import Topics

TIMEOUT_S = 30.0
SHORTEST_PASSWORD = 8


def set_password(root: Path, settings: StreamSettings, name: str, password: str) -> None:
    """Make a login (SCRAM-SHA-512), or give it another password.

    Raises ConfigError for the publisher's own name or a password that is too short, and where we may not.
    """
    if name == ADMIN:
        raise ConfigError(f"{ADMIN} is the publisher itself; choose another name")
    if len(password) < SHORTEST_PASSWORD:
        raise ConfigError(f"the password of {name} is shorter than {SHORTEST_PASSWORD} characters")
    options = client_options(root, settings)
    how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192)
    wanted = UserScramCredentialUpsertion(name, how, password.encode())
    admin = AdminClient(options)  # kept: with the client its futures end
    for future in admin.alter_user_scram_credentials([wanted]).values():
        try:
            future.result(timeout=TIMEOUT_S)
        except KafkaException as problem:
            raise error_of(problem.args[0], str(options["bootstrap.servers"]), f"login {name}") from None
    Topics(options, settings).let_use_groups(name)
