"""The broker with its schema registry as one process: what `tailrace broker` runs.

The registry talks to its broker over TCP like any other client, from threads of its own, so it works
unchanged against another Kafka.  Ports asked for as 0 are chosen once and kept in `<data_dir>/ports.json`,
so that clients find a restarted broker again.
"""

import dataclasses
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvicorn

from tailrace.broker import service as broker
from tailrace.broker.client import Client
from tailrace.broker.config import BrokerConfig, is_loopback
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.registry.http import create_app
from tailrace.registry.store import Store

_log = logging.getLogger(__name__)
_REQUEST_TIMEOUT_S = 30.0


def run(
    data_dir: Path,
    *,
    listen: str,
    registry_listen: str,
    options: Mapping[str, Any] | None = None,
    endpoints_file: Path | None = None,
) -> None:
    """Serve until SIGTERM.  `options` are fields of BrokerConfig, but for data_dir, host and port.

    `endpoints_file` is replaced once both answer: bootstrap and registry_url.

    Raises ConfigError for an address that cannot be used, TailraceError for a port that is taken or a
    data directory that cannot be.
    """
    host, port = parse_address(listen)
    registry_host, registry_port = parse_address(registry_listen)
    config = BrokerConfig(data_dir, host, port, **(options or {}))
    if not config.insecure and not is_loopback(registry_host):
        raise ConfigError(
            f"the registry would listen on {registry_host}, which other machines can reach, without authentication",
            fix="Listen on 127.0.0.1, or accept an open listener with --insecure",
        )
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot use {data_dir} as data directory: {error.strerror}",
            fix="choose a folder that can be written",
        ) from error
    ports = _KeptPorts(data_dir / "ports.json")
    listener = _listen(registry_host, registry_port or ports.get("registry"))
    registry = _RegistryThread(listener)
    failure: list[BaseException] = []

    def on_ready(host: str, port: int) -> None:
        """Runs on the broker's loop, so the registry's start, which asks the broker, goes to a thread."""
        threading.Thread(target=start_registry, args=(f"{host}:{port}", port), daemon=True).start()

    def start_registry(bootstrap: str, port: int) -> None:
        try:
            url = registry.start(bootstrap)
            ports.keep(broker=port, registry=listener.getsockname()[1])
            if endpoints_file is not None:
                _replace(
                    endpoints_file,
                    {
                        "bootstrap": bootstrap,
                        "registry_url": url,
                        "pid": os.getpid(),
                        "started_at": time.time(),
                    },
                )
            _log.info("broker at %s, schema registry at %s", bootstrap, url)
        except BaseException as error:  # noqa: BLE001 - reported by the main thread, which ends the process
            failure.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        broker.run(dataclasses.replace(config, port=port or ports.get("broker")), on_ready=on_ready)
    finally:
        if endpoints_file is not None:
            endpoints_file.unlink(missing_ok=True)
        registry.stop()
    if failure:
        raise failure[0]


class _RegistryThread:
    """uvicorn on a socket of ours, in a thread."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._client: Client | None = None

    def start(self, bootstrap: str) -> str:
        """Replay the store and begin to answer; return the url."""
        self._client = Client(bootstrap, client_id="schema-registry", request_timeout_s=_REQUEST_TIMEOUT_S)
        store = Store(self._client)
        store.open()
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(store), log_level="warning", access_log=False, lifespan="off", log_config=None
            )
        )
        self._thread = threading.Thread(target=self._serve, name="schema-registry", daemon=True)
        self._thread.start()
        host, port = self._listener.getsockname()[:2]
        return f"http://{host}:{port}"

    def _serve(self) -> None:
        assert self._server is not None
        self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """End the thread; unanswered requests are cut off."""
        if self._server is not None:
            self._server.should_exit = True
        if self._client is not None:
            self._client.interrupt()
        if self._thread is not None:
            self._thread.join(5)
        self._listener.close()


class _KeptPorts:
    """Ports chosen at the first start, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, name: str) -> int:
        """The port chosen before, if it is still free; else 0."""
        port = self._ports.get(name, 0)
        try:
            _listen("127.0.0.1", port).close()
        except TailraceError:
            return 0
        return port

    def keep(self, **ports: int) -> None:
        """Remember for the next start."""
        _replace(self._path, ports)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise TailraceError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            fix="stop what uses it, or choose another port",
        ) from error
    return listener


def parse_address(text: str) -> tuple[str, int]:
    """`host:port` -> (host, port); ConfigError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"'{text}' is not an address", fix="write it as host:port, like 127.0.0.1:9092")
    return host.strip("[]"), int(port)


def _replace(path: Path, document: Mapping[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(document))
    temporary.replace(path)
