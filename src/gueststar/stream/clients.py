"""How clients reach the survey's Kafka."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError

from gueststar.core.errors import ConfigError, GueststarError, TransientError
from gueststar.store.settings import StreamSettings, read_settings
from gueststar.stream.broker import ADMIN, LocalBroker
from gueststar.stream.kafka_log import ERRORS, KAFKA_LOG

_A_PERSON_MUST_ACT = frozenset(
    {
        KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError._INVALID_ARG,
    }
)  # fmt: skip
"""Errors that no waiting mends."""

_LOGGING: Mapping[str, Any] = {"log_level": ERRORS, "logger": KAFKA_LOG}
"""The library's own lines go to our log: what matters comes as an error of ours."""


def has_stream(root: Path, settings: StreamSettings) -> bool:
    """Return whether a survey publishes its alerts: to brokers that it names, or to its own."""
    return settings.bootstrap_servers is not None or LocalBroker(root).state is not None


def client_options(root: Path, settings: StreamSettings) -> dict[str, Any]:
    """Return what every client of the survey's brokers is made with (names of librdkafka).

    Raises ConfigError if there are no brokers, or the environment does not hold the password.
    """
    if settings.bootstrap_servers is None:
        return _own_broker(root)
    options: dict[str, Any] = {
        "bootstrap.servers": settings.bootstrap_servers,
        "security.protocol": settings.security,
        **_LOGGING,
    }
    if settings.ca_file is not None:
        if not Path(settings.ca_file).is_file():
            raise ConfigError(f"{settings.ca_file} is not there: stream.ca_file in survey.yaml names no certificates")
        options["ssl.ca.location"] = settings.ca_file
    if settings.security.startswith("sasl"):
        password = os.environ.get(settings.password_variable)
        if settings.username is None or password is None:
            missing = "stream.username in survey.yaml" if settings.username is None else settings.password_variable
            raise ConfigError(f"the stream's brokers want a login: set {missing}")
        options |= {
            "sasl.mechanism": settings.sasl_mechanism, "sasl.username": settings.username, "sasl.password": password,
        }  # fmt: skip
    return options


def _own_broker(root: Path) -> dict[str, Any]:
    state = LocalBroker(root).state
    if state is None:
        raise ConfigError(
            f"{root} has no stream: start a broker (gueststar alerts broker start {root}) "
            "or name yours: stream.bootstrap_servers in survey.yaml"
        )
    options: dict[str, Any] = {"bootstrap.servers": state.bootstrap_servers, **_LOGGING}
    if state.is_secure:
        options |= {
            "security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": ADMIN,
            "sasl.password": state.password,
        }  # fmt: skip
    return options


def replay_options(
    root: Path, *, servers: str | None = None, file: Path | None = None
) -> tuple[StreamSettings, dict[str, Any]]:
    """Return what a replay is sent with: to the survey's brokers, to ``servers``, or as a file of client settings says.

    The file has lines ``name=value`` in the names of librdkafka, as Kafka's own tools read them. ConfigError where it
    cannot be read, or there are no brokers. ``root`` may be a folder that holds logs and no survey.
    """
    path = root / "survey.yaml"
    settings = read_settings(path).stream if path.exists() else StreamSettings()
    options: dict[str, Any] = dict(_LOGGING)
    if file is not None:
        options |= _properties(file)
    if servers is not None:
        options["bootstrap.servers"] = servers
    if "bootstrap.servers" not in options:
        options = client_options(root, settings) | options
    return settings, options


def _properties(file: Path) -> dict[str, str]:
    try:
        lines = [line.strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{file}: cannot be read: {problem}") from None
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    if bad := ["".join(pair) for pair in pairs if not pair[1]]:
        raise ConfigError(f"{file}: {bad[0]!r} is not of the form name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def worst_of(heard: Sequence[KafkaError]) -> KafkaError | None:
    """Return of the errors that a client heard in the background that which a person must mend, else the first."""
    return next((error for error in heard if error.code() in _A_PERSON_MUST_ACT), heard[0] if heard else None)


def error_of(problem: KafkaError | None, servers: str, what: str) -> GueststarError:
    """Return a Kafka error as one of ours: whether waiting may help is what matters."""
    line = f"{what} at {servers}: {problem.str() if problem is not None else 'no answer'}"
    if problem is not None and problem.code() in _A_PERSON_MUST_ACT:
        return ConfigError(f"{line}; mend the login, the access lists or stream in survey.yaml")
    return TransientError(f"{line}; try again when the brokers answer, the alert log keeps everything")
