"""`gueststar` for shell sessions, from one process that has imported everything: each command is a fork of it.

A command is a process of its own, with its own folder, environment and streams, as when a user calls it; only the
seconds of importing are shared. Run as a script it is that process: ``python warm_commands.py SOCKET``.
"""

from __future__ import annotations

import ast
import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CALLER = """\
import json, os, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect(sys.argv[1])
said = json.dumps([sys.argv[2:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(link, [len(said).to_bytes(8, "big")], [0, 1, 2])
link.sendall(said)
status = link.recv(1)
sys.exit(status[0] if status else 1)
"""
"""What stands for `gueststar` on the path: hands its streams over and waits; when it is killed, so is the command."""


@contextmanager
def warm_commands() -> Iterator[Path]:
    """Give a folder for the front of PATH whose `gueststar` starts warm."""
    with tempfile.TemporaryDirectory(prefix="gswarm") as name:
        folder, link = Path(name), Path(name, "link")
        (folder / "bin").mkdir()
        (folder / "caller.py").write_text(CALLER)
        script = folder / "bin" / "gueststar"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{folder}/caller.py" "{link}" "$@"\n')
        script.chmod(0o755)
        server = subprocess.Popen(
            [sys.executable, __file__, str(link)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"
            yield folder / "bin"
        finally:
            server.terminate()
            server.wait()


def import_everything() -> None:
    """Import what the commands import when they run."""
    import gueststar.cli

    for path in sorted(Path(gueststar.cli.__file__).parent.glob("*.py")):
        importlib.import_module(f"gueststar.cli.{path.stem}")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("gueststar."):
                importlib.import_module(node.module)
    importlib.import_module("gueststar.store.butler_registry")
    importlib.import_module("gueststar.store.butler_setup")


def wait_for_a_command(link: str) -> None:
    """Serve callers until the end; return only in the process that is to be a caller's command, ready to run it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(link)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            caller, _ = listener.accept()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if os.fork() == 0:
                break
            caller.close()
    become_command(caller)


def become_command(caller: socket.socket) -> None:
    """Take over a caller's streams, folder and environment in a new process; this one waits for it, and ends."""
    header, streams, _, _ = socket.recv_fds(caller, 8, 3)
    said = b""
    while len(said) < int.from_bytes(header, "big"):
        said += caller.recv(1 << 16)
    words, folder, environment = json.loads(said)
    if pid := os.fork():
        keep(caller, pid)
    caller.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["gueststar", *words]


def keep(caller: socket.socket, pid: int) -> None:
    """Wait for a command, and end it when its caller is gone; never returns."""
    command = os.pidfd_open(pid)
    ready, _, _ = select.select([caller, command], [], [])
    if command not in ready:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    with suppress(OSError):
        caller.send(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def run_and_leave() -> None:
    """Run the command and leave with its status, without taking apart all that was imported (which takes a second)."""
    from gueststar.cli.main import main

    try:
        main()
        status: object = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


if __name__ == "__main__":
    import_everything()
    gc.freeze()
    wait_for_a_command(sys.argv[1])
    run_and_leave()
