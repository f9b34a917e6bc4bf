"""The night's report tells what became of alerts in every flavour."""

from __future__ import annotations

from gueststar.operations.report.stream import stream_lines


def test_flavours_are_told_behind_the_full_stream() -> None:
    dead = {"fate": "dead", "reason": "it holds no packet", "n": 1}
    stream = {
        "counts": {"public": {"sent": 50}}, "reasons": [],
        "flavours": {
            "lite": {"counts": {"public": {"dead": 1, "sent": 49}}, "reasons": [dead]},
            "rubin": {"counts": {}, "reasons": []},
        },
    }  # fmt: skip
    assert stream_lines(stream) == [
        "stream of public: 50 sent", "lite stream of public: 1 dead, 49 sent", "  dead: 1 x it holds no packet",
    ]  # fmt: skip
    assert stream_lines({}) == []
