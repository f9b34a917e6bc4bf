"""What a detector image costs in CPU, memory and bytes: the table on which `gueststar size` rests.

Run: python benchmarks/throughput.py [--epochs N] [--keep FOLDER] [--write FILE.yaml] [hl] [gp]
The data and the way are those of `raw_to_alerts.py`: exposures of 3072 x 3080 pixels at high latitude and in the
Galactic plane, raw file to packets, every product written, in one warm process on one core. Seconds are of CPU, medians
over exposures. ``--write`` keeps the measurement as the file that ships with the package
(src/gueststar/operations/sizing/measured.yaml); `gueststar size SURVEY --measured FILE` takes it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import yaml

from catalogs import data_folder
from gueststar.operations.sizing.measuring import measure_repo
from gueststar.operations.sizing.throughput import MeasuredSky, Throughput, costs_of, measured_now
from gueststar.store.repo import SurveyRepo
from raw_to_alerts import in_fresh_process, make_survey

SKIES = {"hl": "high galactic latitude", "gp": "Galactic plane"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fields", nargs="*", default=list(SKIES), metavar="FIELD")
    parser.add_argument("--epochs", type=int, default=4, help="exposures of each field, where there are as many")
    parser.add_argument("--keep", type=Path, help="folder of references and masters; they stay")
    parser.add_argument("--write", type=Path, help="write the measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        skies = [measured(name, Path(scratch), options.keep, options.epochs) for name in options.fields]
    found = measured_now(skies, how="python benchmarks/throughput.py")
    print_table(found)
    if options.write:
        options.write.write_text(yaml.safe_dump(found.model_dump(mode="json"), sort_keys=False, width=120))


def measured(name: str, scratch: Path, keep: Path | None, epochs: int) -> MeasuredSky:
    data, folder = data_folder() / f"bench_{name}", scratch / name
    kept = (keep or scratch / "kept") / name
    for path in (folder, kept):
        path.mkdir(parents=True, exist_ok=True)
    make_survey(data, folder / "warm", kept, n_epochs=1)
    make_survey(data, folder / "measured", kept, n_epochs=epochs)
    in_fresh_process(folder / "warm", folder / "measured", None, is_apart=False)
    with SurveyRepo.open(folder / "measured") as repo:
        return measure_repo(repo, name=SKIES.get(name, name))


def print_table(found: Throughput) -> None:
    print(f"{found.machine}, {found.date}, gueststar {found.version}")
    print(f"{'CPU s a million pixels':34}" + "".join(f"{sky.name:>26}" for sky in found.skies))
    for step in found.skies[0].steps:
        print(f"{step:34}" + "".join(f"{sky.steps.get(step, 0.0) / sky.mpix:26.4f}" for sky in found.skies))
    for stage in found.skies[0].cpu_s:
        print(f"{stage + ', all':34}" + "".join(f"{sky.cpu_s.get(stage, 0.0) / sky.mpix:26.4f}" for sky in found.skies))
    print("bytes a pixel")
    for product in found.skies[0].bytes:
        print(f"{product:34}" + "".join(f"{sky.bytes.get(product, 0.0) / sky.mpix / 1e6:26.4f}" for sky in found.skies))
    print(f"{'an image'}")
    for sky in found.skies:
        total, size = sum(sky.cpu_s.values()), sum(sky.bytes.values()) / 1e6
        print(f"  {sky.name}: {total:.2f} s of CPU, {sky.n_sources:.0f} sources, {size:.1f} MB, {sky.memory_gb:.2f} GB")
        print(f"    {sky.n_alerts:.0f} alerts of {sky.alert_bytes or 0:.0f} bytes")
    costs = costs_of(found)
    print(f"{costs.per_mpix_s:.3f} s a million pixels and {1e3 * costs.per_source_s:.4f} ms a source")


if __name__ == "__main__":
    main()
