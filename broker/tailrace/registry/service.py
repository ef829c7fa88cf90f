"""The broker with its schema registry as one process: what `tailrace broker` runs.

The registry talks to its broker over TCP like any other client, from threads of its own, so it works
unchanged against another Kafka.  Ports asked for as 0 are chosen once and kept in `<data_dir>/ports.json`,
so that clients find a restarted broker again.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tailrace.broker import service as broker
from tailrace.broker.client import PLAINTEXT, ClientSecurity
from tailrace.broker.config import BrokerConfig, is_loopback
from tailrace.broker.garbage import leave_loaded_alone
from tailrace.broker.http_gate import HTTPS, HttpGate, http_tls
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import ConfigError
from tailrace.changes.whole_file import replace_json
from tailrace.registry.addresses import KeptPorts, bind, parse_address
from tailrace.registry.thread import RegistryThread

_log = logging.getLogger(__name__)


def run(
    data_dir: Path,
    *,
    listen: str,
    registry_listen: str,
    registry_security: ClientSecurity = PLAINTEXT,
    options: Mapping[str, Any] | None = None,
    endpoints_file: Path | None = None,
) -> None:
    """Serve until SIGTERM.  `options` are fields of BrokerConfig, but for data_dir, host and port.

    `registry_listen`: host:port, or https://host:port with the broker's certificate.  `registry_security`: how the
    registry logs in to the broker's first listener.  With an authorizer the registry asks everybody for a login.

    `endpoints_file` is replaced once both answer: bootstrap and registry_url.

    Raises ConfigError for an address that cannot be used, TailraceError for a port that is taken or a
    data directory that cannot be.
    """
    host, port = parse_address(listen)
    place = registry_listen.removeprefix(HTTPS)
    registry_host, registry_port = parse_address(place)
    config = BrokerConfig(data_dir, host, port, **(options or {}))
    tls = http_tls(config, certified=True) if registry_listen.startswith(HTTPS) else None
    _check_places(config, registry_host, tls=tls is not None)
    ports = KeptPorts(data_dir / "ports.json")
    listener = bind(registry_host, registry_port or ports.get("registry"))
    registry = RegistryThread(listener, registry_security, tls)

    def on_ready(server: BrokerServer) -> None:
        """On the broker's loop, which the registry's start asks: it must not wait for it."""
        host, port = server.address
        bootstrap = f"{host}:{port}"
        gate = HttpGate(server) if config.authorizer_class_name else None

        def started(url: str) -> None:
            ports.keep(broker=port, registry=listener.getsockname()[1])
            if endpoints_file is not None:
                found = {"bootstrap": bootstrap, "registry_url": url}
                replace_json(
                    endpoints_file, {**found, "pid": os.getpid(), "started_at": time.time()}, durable=False
                )
            leave_loaded_alone()
            _log.info("broker at %s, schema registry at %s", bootstrap, url)

        registry.start_beside(bootstrap, gate, started)

    try:
        broker.run(dataclasses.replace(config, port=port or ports.get("broker")), on_ready=on_ready)
    finally:
        if endpoints_file is not None:
            endpoints_file.unlink(missing_ok=True)
        registry.stop()
    if registry.failure is not None:
        raise registry.failure


def _check_places(config: BrokerConfig, registry_host: str, *, tls: bool) -> None:
    if not (config.insecure or is_loopback(registry_host)):
        lacking = [
            *(() if config.authorizer_class_name else ("authentication",)),
            *(() if tls else ("TLS",)),
        ]
        if lacking:
            raise ConfigError(
                f"the registry would listen on {registry_host}, which other machines can reach, without "
                + " and ".join(lacking),
                fix="Set authorizer.class.name and write tailrace.registry.listen as https://host:port, or listen on "
                "127.0.0.1, or accept an open listener with --insecure",
            )
    try:
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot use {config.data_dir} as data directory: {error.strerror}",
            fix="choose a folder that can be written",
        ) from error
