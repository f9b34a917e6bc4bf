"""aiokafka, whose protocol is its own code."""

import asyncio
import io

import fastavro
from _telling import ASKED, counts_of, group_of, tell
from aiokafka import AIOKafkaConsumer


async def read():
    login = (
        {
            "security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": ASKED["user"], "sasl_plain_password": ASKED["password"],
        }
        if ASKED["user"] else {}
    )  # fmt: skip
    consumer = AIOKafkaConsumer(
        ASKED["topic"],
        bootstrap_servers=ASKED["servers"],
        group_id=group_of("aio"),
        auto_offset_reset="earliest",
        **login,
    )
    await consumer.start()
    packets = {}
    try:
        for _ in range(ASKED["n"]):
            message = await asyncio.wait_for(consumer.getone(), 30)
            (alert,) = fastavro.reader(io.BytesIO(message.value))
            packets[alert["candid"]] = counts_of(alert)
    finally:
        await consumer.stop()
    return packets


tell(asyncio.run(read()))
