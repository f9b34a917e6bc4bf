from pathlib import Path
from typing import Any

import pytest
import yaml

from gueststar.cameras.load import camera_names, load_camera, parse_camera, to_yaml
from gueststar.core.errors import ConfigError

QUADRANT = Path(__file__).parents[3] / "benchmarks/cameras/quadrant.yaml"


def described(change: dict[str, Any], *, drop: tuple[str, ...] = ()) -> str:
    """Return simcam's description with dotted keys changed."""
    data = yaml.safe_load(to_yaml(load_camera("simcam")))
    for dotted, value in change.items():
        place = data
        *path, last = [int(part) if part.isdigit() else part for part in dotted.split(".")]
        for part in path:
            place = place[part]
        place[last] = value
    for key in drop:
        del data[key]
    return yaml.safe_dump(data)


def test_packaged_cameras_are_listed_and_load() -> None:
    assert camera_names() == ("coldatom", "lowell42", "microobs", "simcam", "ztf")
    for name in camera_names():
        assert load_camera(name).name == name


def test_description_survives_a_round_trip_through_yaml() -> None:
    for source in (*camera_names(), QUADRANT):
        camera = load_camera(source)
        assert parse_camera(to_yaml(camera), source="again") == camera


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no camera or file 'ztff'; packaged cameras: coldatom, lowell42, microobs, simcam, ztf"
    ):
        load_camera("ztff")
    binary = tmp_path / "camera.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_camera(binary)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_scale_arcsec": -1.0}, "pixel_scale_arcsec = -1.0"),
        ({"site.latitude_deg": 95.0}, "site.latitude_deg = 95.0"),
        ({"colour": "red"}, "colour = 'red'"),
        ({"detectors.0.amplifiers.0.gain": 0}, "detectors.0.amplifiers.0.gain = 0"),
        ({"detectors.0.amplifiers.0.data_section": "[1:512;1:1024]"}, "is not a FITS section"),
        ({"detectors.0.amplifiers.0.data_section": "[1:511,1:1024]"}, "amplifier A: data_section is"),
        ({"detectors.0.amplifiers.1.detector_section": "[1:512,1:1024]"}, "leave gaps or overlap"),
        ({"detectors.0.shape": [1024, 1025]}, "leave gaps or overlap"),
        ({"detectors.0.shape": [1024, 1023]}, "exceeds shape"),
        ({"detectors.1.id": 0}, "detector id is not unique"),
        ({"filters.0.aliases": ["g", "r"]}, "filter name 'r' means both sim_g and sim_r"),
        ({"header.observation_types.OBJECT": "sky"}, "header.observation_types.OBJECT = 'sky'"),
        ({"header.program.default": 4}, "header.program.default = 4"),
        ({"header.time.keywords": []}, "takes 1 to 2 keywords"),
        ({"header.time.format": "unix"}, "header.time.format = 'unix'"),
        ({"header.instrument_match": {"INSTRUME": "sim(cam"}}, "not a regular expression"),
        ({"header.default_filter": "z"}, "default_filter 'z' is none of the filters"),
        ({"header.keyword": "X"}, "header.keyword = 'X'"),
        ({"exposure_range_s": [10.0, 1.0]}, "exposure_range_s"),
    ],
)
def test_every_mistake_names_file_key_and_value(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_camera(described(change), source="my.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("my.yaml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds NoneType"),
        ("- a\n- b", "holds list"),
        ("name: [", "is not YAML"),
        ("name: a\nname: b", "key 'name' appears twice"),
    ],
)
def test_text_that_is_no_description_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_camera(text, source="my.yaml")


def test_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="site"):
        parse_camera(described({}, drop=("site",)), source="my.yaml")


def test_table_of_detectors_fills_the_template_with_its_types() -> None:
    camera = load_camera("ztf")
    assert [amplifier.extension for amplifier in camera.detector(22).amplifiers] == [3]
    assert camera.detector(22).amplifiers[0].overscans[0].extension == 7
    assert camera.detector(22).name == "6.3"
    assert (camera.detector(22).ccd, camera.detector(22).quadrant, camera.detector(22).rcid) == (6, 3, 22)


def test_mistakes_in_template_and_table_are_named() -> None:
    text = QUADRANT.read_text(encoding="utf-8").replace(
        "detectors:\n  - id: 0\n    name", "detector_template:\n    name"
    )
    table = "detector_table: {columns: [id], rows: [[0]]}\n"
    assert parse_camera(text + table, source="my.yaml").detectors[0].id == 0
    for wrong, message in (
        ("", "go together"),
        ("detector_table: {rows: [[0]]}\n", "go together"),
        ("detector_table: {columns: [id], rows: [[0, 1]]}\n", r"rows\.0 is \[0, 1\], needs 1 values"),
        (table + "detectors: []\n", "exclude each other"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_camera(text + wrong, source="my.yaml")
    with pytest.raises(ConfigError, match="names no column"):
        parse_camera(text.replace("name: Q1", 'name: "{ccd}"') + table, source="my.yaml")
