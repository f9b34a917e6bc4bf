"""Where workers are: what Dask's classes are told, and what is said when something is missing."""

import sys
from collections.abc import Callable

import pytest

from gueststar.core.errors import ConfigError, ServiceDown
from gueststar.pipelines.engine.clusters import BATCH_SYSTEMS, deployment_arguments, load_package, with_workers
from gueststar.pipelines.engine.contract import Call
from gueststar.pipelines.engine.inline import InlineEngine
from gueststar.pipelines.engine.outcome import Outcome
from gueststar.pipelines.night.process import cluster_settings
from gueststar.store.operation_settings import ClusterSettings


def succeed(job_id: int) -> Outcome:
    return Outcome(job_id, "done")


def test_one_process_runs_calls_in_order_when_they_are_collected() -> None:
    engine = InlineEngine()
    assert engine.n_free == 1
    engine.submit(Call(1, succeed, (1,)))
    engine.submit(Call(2, succeed, (2,)))
    assert engine.n_free == 0
    assert engine.in_hand == {1, 2}
    assert [outcome.job_id for outcome in engine.collect() + engine.collect()] == [1, 2]
    assert engine.collect() == []


def test_calls_are_taken_one_by_one_from_an_iterable() -> None:
    order: list[str] = []

    def run(job_id: int) -> Outcome:
        order.append(f"run {job_id}")
        return Outcome(job_id, "done")

    def calls() -> object:
        for n in (1, 2):
            order.append(f"take {n}")
            yield Call(n, run, (n,))

    assert [outcome.job_id for outcome in InlineEngine().run(calls())] == [1, 2]  # type: ignore[arg-type]
    assert order == ["take 1", "run 1", "take 2", "run 2"]


def test_local_workers_share_nine_tenths_of_the_memory() -> None:
    import psutil

    settings = with_workers(ClusterSettings(workers=3))
    assert settings.memory_gb == pytest.approx(0.3 * psutil.virtual_memory().total / 1e9)


@pytest.mark.parametrize("kind", [*BATCH_SYSTEMS, "kubernetes"])
def test_a_cluster_must_be_told_how_many_workers(kind: str) -> None:
    with pytest.raises(ConfigError, match="operation.cluster.workers"):
        with_workers(ClusterSettings(kind=kind))  # type: ignore[arg-type]


def test_a_scheduler_needs_an_address() -> None:
    with pytest.raises(ConfigError, match="operation.cluster.address"):
        with_workers(ClusterSettings(kind="scheduler"))


@pytest.mark.parametrize("kind", BATCH_SYSTEMS)
def test_a_batch_system_is_asked_for_workers_of_one_core(kind: str) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue")
    load_package(kind)
    options = {"job_script_prologue": ["module load python"], "scheduler_options": {"host": "127.0.0.1"}}
    if kind == "htcondor":
        options["disk"] = "1 GB"  # type: ignore[assignment]
    settings = ClusterSettings(kind=kind, workers=3, memory_gb=2.0, options=options)  # type: ignore[arg-type]
    arguments = deployment_arguments(settings)
    assert arguments["n_workers"] == 3
    assert arguments["scheduler_options"]["host"] == "127.0.0.1"
    made: Callable[..., object] = getattr(jobqueue, BATCH_SYSTEMS[kind][0])
    job = made.job_cls("tcp://127.0.0.1:1", name="w", **_of_a_job(arguments))  # type: ignore[attr-defined]
    script = job.job_script()
    assert "--nthreads 1" in script
    assert "--memory-limit 1.86GiB" in script
    assert "OMP_NUM_THREADS" in script
    assert "module load python" in script


def _of_a_job(arguments: dict[str, object]) -> dict[str, object]:
    of_cluster = {"n_workers", "silence_logs", "scheduler_options", "asynchronous", "security", "protocol"}
    return {name: value for name, value in arguments.items() if name not in of_cluster}


def test_pods_have_one_core_and_their_memory() -> None:
    arguments = deployment_arguments(
        ClusterSettings(kind="kubernetes", workers=5, memory_gb=2.0, options={"image": "survey:1", "env": {"A": "b"}})
    )
    assert arguments["image"] == "survey:1"
    assert arguments["env"]["A"] == "b"
    assert arguments["env"]["OMP_NUM_THREADS"] == "1"
    assert arguments["resources"]["limits"]["cpu"] == "1"
    assert "--nthreads" in arguments["worker_command"]


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(ConfigError, match=r"pip install gueststar\[cluster\]"):
        load_package("slurm")


def test_what_is_asked_for_goes_before_what_the_survey_says() -> None:
    survey = ClusterSettings(kind="slurm", workers=40, options={"queue": "night"}, unit_limit_s=100)
    assert cluster_settings(survey, cluster=None, n_workers=None) == survey
    assert cluster_settings(survey, cluster="slurm", n_workers=2).options == {"queue": "night"}
    here = cluster_settings(survey, cluster="local", n_workers=2)
    assert (here.kind, here.workers, here.options, here.unit_limit_s) == ("local", 2, {}, 100)


def test_a_scheduler_that_does_not_answer_is_a_service_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    from gueststar.pipelines.engine import clusters
    from gueststar.pipelines.engine.dask_engine import make_engine

    monkeypatch.setattr(clusters, "START_S", 1.0)
    with pytest.raises(ServiceDown, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        make_engine(ClusterSettings(kind="scheduler", address="tcp://127.0.0.1:9"))
