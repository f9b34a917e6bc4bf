"""How well real detections are told from artefacts: by class and calibration, on real images, on ZTF packets, and CPU.

Run: python benchmarks/vetting.py ROWS... [--model MODEL] [--packets FOLDER]
ROWS are files of labelled detections that the model was not trained on: `scripts/make_vetting_scenes.py test.parquet
--scenes 100 --first 2001` renders some; `gueststar vet label SURVEY rows.parquet` makes some of real images. Each file
is judged by itself. Without ROWS twenty scenes are rendered. The folder of ZTF packets is alerts_ztf in the folder of
real data (default: $GUESTSTAR_SHARED/data, or shared/data beside the checkout), left out where it is not there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow.parquet as pq
from scipy.stats import spearmanr

from gueststar.algorithms.vetting.judge import area_under_curve
from gueststar.algorithms.vetting.score import ReliabilityModel, score
from gueststar.algorithms.vetting.stamps import stamp_views
from gueststar.formats.labelled_detections import read_labelled
from gueststar.formats.reliability_model import default_reliability_model, read_reliability_model
from gueststar.model.catalog import Catalog
from gueststar.model.labels import DetectionKind, LabelledDetections
from gueststar.pipelines.alerts.packet_views import score_packets
from gueststar.pipelines.difference.train import measure_reliability, training_features

SCENES = Path(__file__).resolve().parents[1] / "scripts" / "make_vetting_scenes.py"


def judge(name: str, model: ReliabilityModel, labelled: LabelledDetections) -> None:
    """Print the figures of one file of labelled detections."""
    found = measure_reliability(model, labelled)
    print(f"\n{name}: {found['n_real']} real detections, {found['n_artefact']} artefacts")
    print("| score | area under the curve | calibration error | real kept at 0.3 | artefacts kept at 0.3 | real missed at 1 % of the artefacts |")  # fmt: skip  # noqa: E501
    print("| --- | --- | --- | --- | --- | --- |")
    for title, part in (
        ("both", found),
        ("features", found.get("features_alone")),
        ("cut-outs", found.get("stamps_alone")),
    ):
        if part is None:
            continue
        at, missed = part["at_threshold"]["0.3"], part["missed_at_1_percent"]
        missed = missed["all"] if isinstance(missed, dict) else missed
        print(
            f"| {title} | {part['area_under_curve']:.4f} | {part['calibration_error']:.3f} | {at['completeness']:.1%} |"
            f" {at['false_positive_rate']:.1%} | {missed:.1%} |"
        )
    _by_kind(found["by_kind"])
    _sharpness(labelled.rows)
    _diagram(found["diagram"])


def _by_kind(kinds: dict[str, Any]) -> None:
    print("\n| class | n | median score | kept at 0.1 | at 0.3 | at 0.5 | at 0.8 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, row in kinds.items():
        shares = " | ".join(f"{share:.1%}" for share in row["kept"].values())
        print(f"| {name} | {row['n']} | {row['median']:.3f} | {shares} |")


def _sharpness(rows: Catalog) -> None:
    """Print how two measures of the plain difference part the classes."""
    print("\n5, 50, 95 %:\n| class | pixel_excess | plain_flux over psf_flux |")
    print("| --- | --- | --- |")
    for kind in DetectionKind:
        mine = rows.select(np.flatnonzero(rows["kind"] == int(kind)))
        if mine.n_rows:
            measures = mine["pixel_excess"], mine["plain_flux"] / mine["psf_flux"]
            parts = (" ".join(f"{x:.2f}" for x in np.nanpercentile(part, [5, 50, 95])) for part in measures)
            print(f"| {kind.title} | {' | '.join(parts)} |")


def _diagram(diagram: dict[str, list[float]]) -> None:
    print("\n| score | share of real ones | detections |")
    print("| --- | --- | --- |")
    for mean, share, n in zip(*(diagram[key] for key in ("score", "fraction_real", "n_detections")), strict=True):
        print(f"| {mean:.2f} | {share:.2f} | {n} |")


def cpu_of(model: ReliabilityModel, labelled: LabelledDetections, *, n: int = 200) -> None:
    """Print the CPU time a candidate, in images of ``n`` candidates."""
    rows = labelled.select(np.resize(np.arange(labelled.rows.n_rows), n))
    features, _ = training_features(rows.rows)
    stamps = np.random.default_rng(1).normal(size=(n, 3, 63, 63)).astype(np.float32)
    zero, positive = np.zeros(n), np.ones(n, dtype=bool)
    views = stamp_views(stamps, dx=zero, dy=zero, fwhm=3.0, is_positive=positive)
    steps: dict[str, Callable[[], object]] = {
        "views of cut-outs": lambda: stamp_views(stamps, dx=zero, dy=zero, fwhm=3.0, is_positive=positive),
        "features": lambda: training_features(rows.rows),
        "trees": lambda: score(model, features),
        "trees and network": lambda: score(model, features, views),
    }
    print(f"\nCPU a candidate, images of {n} candidates, best of five:")
    for name, step in steps.items():
        step()
        spent = []
        for _ in range(5):
            start = time.process_time()
            step()
            spent.append(time.process_time() - start)
        print(f"  {name}: {1e3 * min(spent) / n:.3f} ms")


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


def compare_ztf(model: ReliabilityModel, folder: Path) -> None:
    """Print how the network ranks ZTF's packets, beside ZTF's own scores."""
    packets = ztf_packets(folder)
    ours = score_packets(model, packets)
    scores = {
        name: np.array([packet["candidate"].get(name) or np.nan for packet in packets], dtype=float)
        for name in ("rb", "drb")
    }
    print(f"\n{len(packets)} ZTF packets, their cut-outs alone:")
    for name, theirs in scores.items():
        known = np.isfinite(theirs)
        area = area_under_curve(ours[known], theirs[known] > 0.65)
        rank = spearmanr(ours[known], theirs[known]).statistic
        n = int((theirs[known] > 0.65).sum())
        print(f"  against {name}: {known.sum()} packets, {n} above 0.65, area {area:.3f}, rank correlation {rank:.3f}")
    both = np.isfinite(scores["drb"]) & np.isfinite(scores["rb"])
    area = area_under_curve(scores["rb"][both], scores["drb"][both] > 0.65)
    rank = spearmanr(scores["rb"][both], scores["drb"][both]).statistic
    print(f"  ZTF's rb against its drb: area {area:.3f}, rank correlation {rank:.3f}")


def rendered(folder: Path) -> Path:
    path = folder / "scenes.parquet"
    subprocess.run([sys.executable, str(SCENES), str(path), "--scenes", "20", "--first", "2001"], check=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--packets", type=Path)
    options = parser.parse_args()
    model = read_reliability_model(options.model) if options.model else default_reliability_model()
    print(f"{model.version}, network {model.network_version or 'none'}")
    with tempfile.TemporaryDirectory() as folder:
        files = options.rows or [rendered(Path(folder))]
        tested = [(path.stem, read_labelled(path)) for path in files]
    for name, labelled in tested:
        judge(name, model, labelled)
    cpu_of(model, tested[0][1])
    beside = Path(os.environ.get("GUESTSTAR_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    packets = options.packets or beside / "data" / "alerts_ztf"
    if packets.is_dir() and model.network is not None:
        compare_ztf(model, packets)


if __name__ == "__main__":
    main()
