"""Cameras that write TIFF: pages, tags, names and sidecars."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from numpy.typing import NDArray

from gueststar.cameras.load import load_camera, parse_camera, to_yaml
from gueststar.cameras.translate import translate
from gueststar.core.errors import ConfigError, DataError
from gueststar.formats.raw import pixel_checksum, read_detector, read_headers, read_section
from gueststar.formats.tiff import cards_of_text
from gueststar.model.camera import Camera

PIXELS = np.arange(30 * 40, dtype=np.uint16).reshape(30, 40)


def write(path: Path, pixels: NDArray[np.generic] = PIXELS, **options: object) -> Path:
    tifffile.imwrite(path, pixels, metadata=None, software="lab 3", datetime="2024:05:06 07:08:09", **options)  # type: ignore[arg-type]
    return path


def camera(**header: object) -> Camera:
    """Return a small laboratory camera whose header mapping is changed."""
    data = yaml.safe_load(to_yaml(load_camera("coldatom")))
    data["detectors"][0] |= {"shape": [30, 40]}
    data["detectors"][0]["amplifiers"][0] |= {"data_section": "[1:40,1:30]", "detector_section": "[1:40,1:30]"}
    data["header"] = {
        "time": {"keywords": ["DATETIME"]}, "default_filter": "probe", "default_observation_type": "science",
        "exposure_s": ["EXPOSURE"], "program": {"default": 1}, **header,
    }  # fmt: skip
    data.pop("settings")
    return parse_camera(yaml.safe_dump(data), source="test")


def test_tags_are_cards_and_the_date_is_iso(tmp_path: Path) -> None:
    raw = read_headers(write(tmp_path / "a.tif", description="exposure = 0.25\nshutter: open"))
    assert raw.primary["SOFTWARE"] == "lab 3"
    assert raw.primary["DATETIME"] == "2024-05-06T07:08:09"
    assert (raw.primary["EXPOSURE"], raw.primary["SHUTTER"]) == (0.25, "open")
    assert raw.images[0].shape == (30, 40)


@pytest.mark.parametrize(
    "options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"}, {"tile": (16, 16)}]
)
def test_the_same_pixels_however_packed(tmp_path: Path, options: dict[str, object]) -> None:
    path = write(tmp_path / "a.tiff", **options)
    packed = tmp_path / "b.tiff.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    raw = read_headers(packed)
    assert np.array_equal(read_section(raw, 0, "[1:40,1:30]"), PIXELS.astype(np.float32))
    assert pixel_checksum(path) == pixel_checksum(packed) == pixel_checksum(write(tmp_path / "plain.tif"))


def test_pages_are_extensions_and_colour_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as out:
        for factor in (1, 2):
            out.write(PIXELS * factor, metadata=None)
        out.write(np.zeros((30, 40, 3), np.uint8), photometric="rgb", metadata=None)
    raw = read_headers(path)
    assert [item.shape for item in raw.extensions] == [(30, 40), (30, 40), None]
    assert read_section(raw, 1, "[2:2,1:1]")[0, 0] == 2.0
    assert len(raw.images) == 2


def test_a_cut_or_damaged_file_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.tif").read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"truncated|damaged"):
        read_headers(cut)
    cut.write_bytes(whole[:4] + b"\xff" * 40)
    with pytest.raises(DataError, match="cut.tif"):
        read_headers(cut)


def test_a_camera_file_describes_a_tiff_camera_from_names_and_tags(tmp_path: Path) -> None:
    described = camera(
        file_name=r"^(?P<kind>\w+)_(?P<target>\w+)\.", observation_type=["KIND"],
        observation_types={"dark": "bias", "obj": "science"}, object_name=["TARGET"],
        instrument_match={"SOFTWARE": "lab .*"},
    )  # fmt: skip
    path = write(tmp_path / "obj_m31.tif", description="exposure=0.5")
    found = translate(described, read_headers(path))
    assert (found.info.observation_type, found.info.object_name, found.info.exposure_s) == ("science", "m31", 0.5)
    assert (found.info.ra, found.info.physical_filter) == (None, "probe")
    pixels = read_detector(path, described.detectors[0], found.info)
    assert pixels.amplifiers[0].data[2, 3] == PIXELS[2, 3]
    with pytest.raises(DataError, match="not named as"):
        translate(described, read_headers(write(tmp_path / "m31.tif", description="exposure=0.5")))


def test_a_sidecar_tells_what_the_file_does_not(tmp_path: Path) -> None:
    described = camera(sidecar=".json")
    path = write(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.json beside it"):
        translate(described, read_headers(path))
    (tmp_path / "a.json").write_text(json.dumps({"Exposure": 1.5, "nested": {"x": 1}}))
    assert translate(described, read_headers(path)).info.exposure_s == 1.5
    own = write(tmp_path / "b.tif", description="exposure=2")
    (tmp_path / "b.json").write_text(json.dumps({"EXPOSURE": 9.0}))
    assert translate(described, read_headers(own)).info.exposure_s == 2.0


def test_local_time_and_frames_of_one_stamp_are_told_apart(tmp_path: Path) -> None:
    time = {"keywords": ["DATETIME"], "utc_offset_h": -5, "delay_keyword": "KIND", "delays_s": {"a": 0, "b": 2.5}}
    described = camera(file_name=r"^(?P<kind>\w)\.", default_exposure_s=0.1, exposure_s=[], time=time)
    first, second = (translate(described, read_headers(write(tmp_path / f"{k}.tif"))).info for k in "ab")
    assert (second.mjd_start - first.mjd_start) * 86400 == pytest.approx(2.5, abs=1e-4)
    assert (first.mjd_start % 1) * 24 == pytest.approx(12 + 8 / 60 + 9 / 3600 + 37 / 3600, abs=1e-4)
    assert first.exposure_id != second.exposure_id
    with pytest.raises(DataError, match="delays_s"):
        translate(described, read_headers(write(tmp_path / "c.tif")))


def test_half_described_delays_and_patterns_without_groups_are_mistakes() -> None:
    with pytest.raises(ConfigError, match="go together"):
        camera(time={"keywords": ["DATETIME"], "delay_keyword": "KIND"})
    with pytest.raises(ConfigError, match="named group"):
        camera(file_name="abc")


def test_text_beside_a_file_becomes_cards() -> None:
    assert cards_of_text("Gain: 2.5\n# comment\nmode = 'fast'\nn=3") == {"GAIN": 2.5, "MODE": "fast", "N": 3}
    assert cards_of_text("just words") == {}
