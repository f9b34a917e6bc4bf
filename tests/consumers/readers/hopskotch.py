"""hop-client: its stream, which opens Avro because the message's header says so."""

from _telling import ASKED, counts_of, group_of, tell
from hop import Stream
from hop.auth import Auth
from hop.io import StartPosition
from hop.models import AvroBlob

host = ASKED["servers"]
auth = Auth(ASKED["user"], ASKED["password"], host=host, ssl=False, method="SCRAM-SHA-512") if ASKED["user"] else False
stream = Stream(auth=auth, start_at=StartPosition.EARLIEST, until_eos=True)
packets = {}
with stream.open(f"kafka://{host}/{ASKED['topic']}", "r", group_id=group_of("hop")) as messages:
    for message in messages:
        assert isinstance(message, AvroBlob), type(message)
        packets[message.content["candid"]] = counts_of(message.content)
tell(packets)
