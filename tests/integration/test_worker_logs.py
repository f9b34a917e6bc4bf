"""Workers of a real engine write down what they do, each in a file of its own that only the operator reads."""

from __future__ import annotations

import stat
from types import SimpleNamespace

from gueststar.core.errors import DataError
from gueststar.operations.watch.logs import LogFilter, read_log
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.dask_engine import make_engine
from gueststar.pipelines.engine.outcome import Result, attempt
from gueststar.store.operation_settings import ClusterSettings


def test_a_units_lines_name_exposure_night_detector_job_and_worker(tmp_path):
    def run(work):
        def stage():
            if work.detector_id == 1:
                raise DataError("too few stars")
            return Result()

        return attempt(work.job_id, stage)

    def work(detector):
        info = SimpleNamespace(exposure_id=12, day_obs=20260101)
        return SimpleNamespace(job_id=70 + detector, repo_root=tmp_path, info=info, detector_id=detector)

    engine = make_engine(ClusterSettings(workers=1), scratch=str(tmp_path))
    try:
        outcomes = list(engine.run(Call(70 + detector, run, (work(detector),)) for detector in (0, 1)))
    finally:
        engine.close()
    assert sorted(outcome.state for outcome in outcomes) == ["done", "failed"]
    (line,) = read_log(tmp_path, LogFilter(exposure=12, level="warning"))
    assert (line["night"], line["detector"], line["job"], line["message"]) == (20260101, 1, 71, "failed: too few stars")
    assert line["worker"]
    (path,) = (tmp_path / "logs").iterdir()
    assert path.name.startswith("worker-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
