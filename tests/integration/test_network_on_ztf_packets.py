"""The network, which never saw ZTF, ranks real ZTF packets more like than unlike ZTF's own classifiers."""

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


def test_the_ranking_leans_to_that_of_ztfs_own_classifiers(shared_data: Path) -> None:
    if not (shared_data / "alerts_ztf").is_dir():
        pytest.skip("there are no ZTF packets among the real data")
    model = default_reliability_model()
    if model.network is None:
        pytest.skip("the model that ships has no network")
    packets = ztf_packets(shared_data / "alerts_ztf")
    score = score_packets(model, packets)
    assert len(packets) > 100
    assert np.isfinite(score).all()
    for name, area, rank in (("rb", 0.5, 0.15), ("drb", 0.6, 0.3)):
        theirs = np.array([packet["candidate"].get(name) or np.nan for packet in packets], dtype=float)
        known = np.isfinite(theirs)
        assert area_under_curve(score[known], theirs[known] > 0.65) > area
        found = spearmanr(score[known], theirs[known])
        assert found.statistic > rank
        assert found.pvalue < 0.01
