"""A single-node Apache Kafka for one machine: fetched by Maven, data in the survey repository, stopped by pid.

Production is any Kafka, named by ``stream.bootstrap_servers`` in survey.yaml; this one serves tests and surveys that
have one machine. It listens on loopback only, in KRaft mode (no ZooKeeper).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from gueststar.core.errors import ConfigError, TransientError
from gueststar.formats.atomic import appearing_whole

KAFKA_VERSION = "3.9.1"
"""Of the last line of brokers that let librdkafka before 2.6.1 (kcat of Debian 12) log in with SCRAM."""

SCALA_VERSION = "2.13"
LOG4J_VERSION = "2.24.3"

FOLDER = "broker"
"""Folder of a repository that holds the broker's data, settings and log."""

HOST = "127.0.0.1"
START_S = 180.0
"""A broker that does not answer after this time will not."""
STOP_S = 60.0
QUICK_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Java's quick compiler alone: it starts in half the time, and a broker of one machine is no slower for it."""
_LOOKS = 20
"""How often a process that has no command line yet is looked at."""
ADMIN = "gueststar"
"""User of a secured broker that may do everything: the publisher."""

_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>gueststar</groupId><artifactId>broker</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_{scala}</artifactId><version>{kafka}</version></dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>{log4j}</version>
</dependency>
<dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-1.2-api</artifactId><version>{log4j}</version>
</dependency></dependencies></project>
"""

_LOGGING = """\
<Configuration><Appenders>
<RollingFile name="file" fileName="{folder}/broker.log" filePattern="{folder}/broker.%i.log">
<PatternLayout pattern="%d %p %c: %m%n"/>
<SizeBasedTriggeringPolicy size="10MB"/><DefaultRolloverStrategy max="3"/>
</RollingFile></Appenders>
<Loggers><Root level="warn"><AppenderRef ref="file"/></Root></Loggers></Configuration>
"""


@dataclass(frozen=True)
class BrokerState:
    """What is known of a repository's broker; kept in ``broker/state.json``, readable by its owner only."""

    port: int
    controller_port: int
    cluster_id: str
    is_secure: bool
    password: str
    """Of the user `ADMIN`; empty where the broker asks for none."""
    kafka_version: str = "4.1.0"
    """Of the programs that made its data: an older Kafka does not read what a newer one wrote."""

    @property
    def bootstrap_servers(self) -> str:
        """Where clients find it."""
        return f"{HOST}:{self.port}"


class LocalBroker:
    """The broker of the repository at ``root``."""

    def __init__(self, root: Path) -> None:
        self.folder = root.absolute() / FOLDER

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    @property
    def state(self) -> BrokerState | None:
        """What is known of it; None if there never was one here."""
        path = self.folder / "state.json"
        return BrokerState(**json.loads(path.read_text())) if path.exists() else None

    def start(self, *, is_secure: bool = False, memory_mb: int = 256) -> BrokerState:
        """Start the broker unless it runs, wait until it answers, and return where it is.

        The ports are chosen free at the first start and kept. ``is_secure`` (at the first start only): clients log in
        with SCRAM, and topics have access lists. Raises ConfigError where Java or Maven is missing, TransientError if
        it does not come up.
        """
        known = self.state
        jars = installed(known.kafka_version if known else KAFKA_VERSION)
        state = known or self._made(jars, is_secure=is_secure)
        if self.pid() is None:
            java = _program("java", "openjdk-17-jre-headless")
            command = [
                java, f"-Xmx{memory_mb}m", *QUICK_JAVA, "-cp", f"{jars}/*",
                f"-Dlog4j2.configurationFile={self.folder}/log4j2.xml",
                "kafka.Kafka", str(self._properties),
            ]  # fmt: skip
            (self.folder / "log4j2.xml").write_text(_LOGGING.format(folder=self.folder))
            with (self.folder / "console.log").open("ab") as console:
                process = subprocess.Popen(
                    command, stdout=console, stderr=console, stdin=subprocess.DEVNULL, start_new_session=True
                )
            _write_private(self.folder / "pid", str(process.pid))
        self._wait_until_it_answers(state)
        return state

    def pid(self) -> int | None:
        """Return the process that is the broker; None if it does not run.

        It is known by its command line: a start time would be of a clock that may be set meanwhile.
        """
        try:
            process = psutil.Process(int((self.folder / "pid").read_text().split()[0]))
            for _ in range(_LOOKS):
                if (words := process.cmdline()) or process.status() == psutil.STATUS_ZOMBIE:
                    break
                time.sleep(0.05)  # a process that is just being started has no command line yet
            is_ours = str(self._properties) in words and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return process.pid if is_ours else None

    def stop(self, *, is_sudden: bool = False) -> bool:
        """Stop the broker and wait for its end; return whether it ran. ``is_sudden`` kills it without notice."""
        pid = self.pid()
        if pid is None:
            return False
        process = psutil.Process(pid)
        try:
            process.send_signal(signal.SIGKILL if is_sudden else signal.SIGTERM)
            process.wait(STOP_S)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)
        except psutil.NoSuchProcess:
            pass
        (self.folder / "pid").unlink(missing_ok=True)
        return True

    def _made(self, jars: Path, *, is_secure: bool) -> BrokerState:
        """Write settings and format the data folder; a broker whose making was broken off is made anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        port, controller_port = free_ports(2)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        state = BrokerState(
            port, controller_port, cluster, is_secure, secrets.token_urlsafe(18) if is_secure else "", KAFKA_VERSION
        )  # fmt: skip
        _write_private(self._properties, _properties(self.folder, state))
        command = [
            _program("java", "openjdk-17-jre-headless"), *QUICK_JAVA, "-cp", f"{jars}/*", "kafka.tools.StorageTool",
            "format", f"--cluster-id={cluster}", "-c", str(self._properties),
        ]  # fmt: skip
        if is_secure:
            command += ["--add-scram", f"SCRAM-SHA-512=[name={ADMIN},password={state.password}]"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
        if done.returncode != 0:
            raise TransientError(f"{self.folder}: the broker's data folder cannot be made: {_last_line(done.stderr)}")
        _write_private(self.folder / "state.json", json.dumps(asdict(state)))
        return state

    def _wait_until_it_answers(self, state: BrokerState) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self.pid() is None:
                break
            if _takes_connections(state.port):
                return
            time.sleep(0.1)
        console = self.folder / "console.log"
        said = _last_line(console.read_text(errors="replace")) if console.exists() else "it said nothing"
        raise TransientError(
            f"the broker of {self.folder.parent} does not start: {said} (see {self.folder}/broker.log)"
        )


def installed(version: str = KAFKA_VERSION, *, cache: Path | None = None) -> Path:
    """Return the folder of Kafka's programs of a version, fetching them from Maven Central the first time.

    They lie in the user's cache (``XDG_CACHE_HOME``, else ``~/.cache``) and serve every repository. Raises ConfigError
    where Maven is missing, TransientError where the fetch fails.
    """
    caches = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gueststar"
    target = caches / f"kafka-{version}"
    if target.is_dir():
        return target
    work = caches / f"kafka-{version}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "pom.xml").write_text(_POM.format(scala=SCALA_VERSION, kafka=version, log4j=LOG4J_VERSION))
    command = [
        _program("mvn", "maven"), "-q", "-B", "-C", "dependency:copy-dependencies", "-DincludeScope=runtime",
        f"-DoutputDirectory={work}/jars",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=900)
        if done.returncode != 0 or not list((work / "jars").glob("kafka_*.jar")):
            raise TransientError(f"Kafka {version} cannot be fetched from Maven Central: {_last_line(done.stdout)}")
        try:
            (work / "jars").rename(target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _properties(folder: Path, state: BrokerState) -> str:
    lines = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{state.controller_port}",
        "listeners": f"CLIENT://{HOST}:{state.port},CONTROLLER://{HOST}:{state.controller_port}",
        "advertised.listeners": f"CLIENT://{HOST}:{state.port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "CLIENT",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(folder / "data"),
        "num.network.threads": "2",
        "num.io.threads": "2",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "log.retention.ms": "-1",  # the survey's disk is watched as a whole; brokers delete nothing by themselves
        "compression.type": "producer",
        "message.max.bytes": "4194304",
    }
    if state.is_secure:
        lines |= _secured(state)
    return "".join(f"{key}={value}\n" for key, value in lines.items())


def _secured(state: BrokerState) -> dict[str, str]:
    """Return what makes clients log in (SCRAM), and topics closed to whoever no access list names."""
    login = f'username="{ADMIN}" password="{state.password}"'
    scram, plain = "org.apache.kafka.common.security.scram.ScramLoginModule", "org.apache.kafka.common.security.plain.PlainLoginModule"  # fmt: skip  # noqa: E501
    return {
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "listener.name.client.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.client.scram-sha-512.sasl.jaas.config": f"{scram} required {login};",
        "listener.name.controller.plain.sasl.jaas.config": (
            f'{plain} required {login} user_{ADMIN}="{state.password}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{ADMIN}",
        "allow.everyone.if.no.acl.found": "false",
    }


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigError(
            f"a broker on this machine needs {name} (Debian package {package}); "
            "or name a Kafka of yours: stream.bootstrap_servers in survey.yaml"
        )
    return found


def _write_private(path: Path, text: str) -> None:
    with appearing_whole(path) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(text)


def free_ports(n: int) -> list[int]:
    """Return ports of loopback that nobody uses now, all different."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for item in sockets:
            item.bind((HOST, 0))
        return [int(item.getsockname()[1]) for item in sockets]
    finally:
        for item in sockets:
            item.close()


def _takes_connections(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
