"""A real Slurm of a test's own: a controller and two node daemons on this machine, stopped when the test ends."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gueststar.pipelines.engine.on_worker import end_with_parent

PROGRAMS = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm"}
"""Program -> package of Debian that has it."""
NODES = ("node1", "node2")
CONFIGURATION = """
ClusterName=gueststar
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmctldPort={ports[0]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_min_interval=200000
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=6000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=6000
PartitionName=night Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class SlurmCluster:
    """A running Slurm."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What tells Slurm's commands which cluster is meant."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def options(self) -> dict[str, object]:
        """Options of a survey's ``operation.cluster`` for this Slurm."""
        return {
            "queue": "night", "walltime": "01:00:00", "log_directory": str(self.folder / "jobs"),
            "scheduler_options": {"host": "127.0.0.1"},
        }  # fmt: skip

    def jobs(self) -> dict[str, str]:
        """Job id -> the node it runs on, of running jobs."""
        told = self.ask("squeue", "--noheader", "--states=R", "--format=%i %N")
        return dict(line.split() for line in told.splitlines())

    def ask(self, *words: str) -> str:
        """Run one of Slurm's commands."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(words, check=True, timeout=60, env=environment, capture_output=True, text=True).stdout


@contextmanager
def running_slurm() -> Iterator[SlurmCluster]:
    """Run a controller and two nodes; skip the test where that cannot be done."""
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=_SEARCHED) is None:
            pytest.skip(f"no {program} to run Slurm with: apt-get install {package}")
    if os.geteuid() != 0:
        pytest.skip("Slurm's node daemons start jobs of users: that takes root")
    folder = Path(tempfile.mkdtemp(prefix="gsslurm"))
    cluster = SlurmCluster(folder)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for daemon in _started(cluster):
            daemons.append(daemon)
        yield cluster
        cluster.ask("scancel", "--state=RUNNING", f"--user={getpass.getuser()}")
    finally:
        _stop(daemons)
        shutil.rmtree(folder, ignore_errors=True)


_SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _started(cluster: SlurmCluster) -> Iterator[subprocess.Popen[bytes]]:
    folder = cluster.folder
    for name in ("state", "jobs"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    text = CONFIGURATION.format(host=socket.gethostname(), user=getpass.getuser(), folder=folder, ports=free_ports(3))
    (folder / "slurm.conf").write_text(text)
    conf = str(folder / "slurm.conf")
    yield _daemon(
        folder, "munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge.socket",
        f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed",
        "--num-threads=2",
    )  # fmt: skip
    _wait_for((folder / "munge.socket").exists, folder)
    yield _daemon(folder, "slurmctld", "-D", "-f", conf, "-c")
    for node in NODES:
        yield _daemon(folder, "slurmd", "-D", "-f", conf, "-N", node)
    _wait_for(lambda: _n_idle(cluster) == len(NODES), folder)


def _n_idle(cluster: SlurmCluster) -> int:
    try:
        return int(cluster.ask("sinfo", "--noheader", "--states=idle", "--format=%D").strip() or 0)
    except subprocess.CalledProcessError:
        return 0


def _wait_for(condition: Callable[[], bool], folder: Path) -> None:
    for _ in range(150):
        if condition():
            return
        time.sleep(0.1)
    log = folder / "daemons.log"
    lines = log.read_text().splitlines() if log.exists() else []
    pytest.skip(f"Slurm does not start here: {lines[-1] if lines else 'no reason given'}")


def _daemon(folder: Path, program: str, *words: str) -> subprocess.Popen[bytes]:
    """Start a daemon in the foreground; it ends with this process, however that ends."""
    with (folder / "daemons.log").open("ab") as log:
        return subprocess.Popen(
            [shutil.which(program, path=_SEARCHED) or program, *words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent,
        )  # fmt: skip


def _stop(daemons: list[subprocess.Popen[bytes]]) -> None:
    for daemon in reversed(daemons):
        daemon.terminate()
        try:
            daemon.wait(timeout=5)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def free_ports(n: int) -> list[int]:
    """Return numbers of ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
