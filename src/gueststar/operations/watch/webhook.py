"""Messages leave by a webhook: JSON that is posted to an address."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from gueststar.core.errors import ConfigError, TransientError

TIMEOUT_S = 10.0


def post(url: str, facts: Mapping[str, Any]) -> None:
    """Post values as JSON; ``text`` among them is what chat services show.

    Raises TransientError where the service is away or refuses, ConfigError for an address that is none. Messages name
    the host only: the rest of such an address is often a secret.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError("operation.alarms.webhook is no address: it begins with http:// or https:// and a host")
    body = json.dumps(facts, default=str).encode()
    request = urllib.request.Request(
        url, data=body, headers={"Content-Type": "application/json", "User-Agent": "gueststar"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            return
    except urllib.error.HTTPError as problem:
        raise TransientError(f"the webhook at {parts.hostname} refuses: {problem.code} {problem.reason}") from None
    except OSError as problem:
        reason = getattr(problem, "reason", problem)
        raise TransientError(f"the webhook at {parts.hostname} cannot be reached now: {reason}") from None
