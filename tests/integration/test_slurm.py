"""A night on the nodes of a real Slurm: what comes out is what one process makes."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import pytest

from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.dask_engine import DaskEngine
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.pipelines.night.process import process_nights
from gueststar.store.operation_settings import ClusterSettings
from tests.end_to_end._survey import alert_digests, product_digests
from tests.integration import engine_units as units
from tests.integration.small_nights import processed_here, survey
from tests.slurm_cluster import SlurmCluster, running_slurm


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed: pip install gueststar[cluster]")
    with running_slurm() as cluster, pytest.MonkeyPatch.context() as patch:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", "1")
        yield cluster


@pytest.mark.slow
def test_nights_on_slurm_are_the_same_as_in_one_process(
    slurm: SlurmCluster, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = processed_here(tmp_path_factory)
    cluster = {"kind": "slurm", "workers": 2, "memory_gb": 3.0, "options": slurm.options()}
    here, there = made / "here", survey(tmp_path, "there", sky=made / "sky", cluster=cluster)
    nodes: set[str] = set()
    process_nights(there, until="precover", progress=lambda *_: nodes.update(slurm.jobs().values()))
    assert nodes == {"node1", "node2"}
    found = product_digests(there)
    assert found == product_digests(here)
    assert {name for name, _, _ in found} >= {"bias", "flat", "science_image", "reference_image", "difference_image"}
    assert alert_digests(there) == alert_digests(here)


def test_a_cancelled_job_takes_its_unit_with_it_and_another_is_asked_for(slurm: SlurmCluster) -> None:
    cloudpickle.register_pickle_by_value(units)  # workers need not find the tests
    settings = ClusterSettings(kind="slurm", workers=2, memory_gb=1.0, options=slurm.options())
    with DaskEngine(settings, modules=("gueststar.pipelines.engine.outcome",)) as engine:
        wait_for(lambda: engine.collect(0.2) == [] and engine.n_free == 4)
        before = slurm.jobs()
        engine.submit(Call(1, units.take_time, (1, 60.0)))
        engine.submit(Call(2, units.take_time, (2, 60.0)))
        time.sleep(0.5)
        slurm.ask("scancel", min(before))
        found: list[Outcome] = []
        wait_for(lambda: bool(found.extend(engine.collect(0.2)) or found))
        assert "the worker" in found[0].reason
        assert found[0].is_retryable
        wait_for(lambda: engine.collect(0.2) == [] and engine.n_free == 3)
        assert len(set(slurm.jobs()) - set(before)) == 1


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
