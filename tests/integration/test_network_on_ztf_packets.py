"""The network, which never saw ZTF, ranks real ZTF packets as ZTF's own classifiers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from gueststar.algorithms.vetting.judge import area_under_curve
from gueststar.formats.reliability_model import default_reliability_model
from gueststar.pipelines.alerts.packet_views import score_packets

pytestmark = pytest.mark.real_data


def ztf_packets(folder: Path) -> list[dict[str, Any]]:
    """Return the distinct packets that have all cut-outs (files that need a codec that is missing are left out)."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.avro")):
        if "corrupt" in str(path) or "template" in path.name:
            continue
        try:
            with path.open("rb") as stream:
                packets = [packet for packet in fastavro.reader(stream) if isinstance(packet, dict)]
        except ValueError:
            continue
        found |= {packet["candid"]: packet for packet in packets if "candidate" in packet}
    for path in sorted(folder.rglob("*.parquet")):
        for packet in pq.read_table(path).to_pylist():
            found.setdefault(int(packet["candid"]), packet)
    cutouts = ("cutoutScience", "cutoutTemplate", "cutoutDifference")
    return [packet for packet in found.values() if all(packet.get(name) for name in cutouts)]


def test_the_ranking_agrees_with_ztfs_own(shared_data: Path) -> None:
    if not (shared_data / "alerts_ztf").is_dir():
        pytest.skip("there are no ZTF packets among the real data")
    model = default_reliability_model()
    if model.network is None:
        pytest.skip("the model that ships has no network")
    packets = ztf_packets(shared_data / "alerts_ztf")
    score = score_packets(model, packets)
    rb = np.array([packet["candidate"]["rb"] for packet in packets], dtype=float)
    assert len(packets) > 100
    assert area_under_curve(score, rb > 0.65) > 0.75
    assert spearmanr(score, rb).statistic > 0.3
    assert np.median(score[rb > 0.65]) > 0.7
