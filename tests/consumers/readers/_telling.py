"""What every reader script shares: what it is asked for, and how it tells what it saw. Standard library only."""

import json
import sys

ASKED = json.loads(sys.argv[1])
"""servers, topic, keyed_topic, user, password, n (packets on the topic), files, tar."""


def counts_of(alert):
    """Return what a packet holds: photopoints (its own with them), upper limits, forced fluxes."""
    history = alert["prv_candidates"] or []
    n_seen = sum(item["candid"] is not None for item in history)
    return [1 + n_seen, len(history) - n_seen, len(alert["fp_hists"] or [])]


def group_of(client):
    """Return the name of a client's consumer group: where one logs in, it begins with the login."""
    return f"{ASKED['user']}-{client}" if ASKED["user"] else client


def librdkafka_options(client):
    """Return the settings of a consumer made of librdkafka."""
    options = {"bootstrap.servers": ASKED["servers"], "group.id": group_of(client), "auto.offset.reset": "earliest"}
    if ASKED["user"]:
        options |= {
            "security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": ASKED["user"],
            "sasl.password": ASKED["password"],
        }  # fmt: skip
    return options


def confluent_messages(client):
    """Yield the messages of the topic as confluent-kafka gives them."""
    from confluent_kafka import Consumer

    consumer = Consumer(librdkafka_options(client))
    consumer.subscribe([ASKED["topic"]])
    for _ in range(ASKED["n"]):
        message = consumer.poll(30)
        assert message is not None, "no message came"
        assert message.error() is None, message.error()
        yield message
    consumer.close()


def tell(packets, **notes):
    """Print what was seen: candid -> counts."""
    print(json.dumps({"packets": packets, "notes": notes}))
