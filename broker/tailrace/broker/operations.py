"""The HTTP address for operators: /metrics for Prometheus, /health/live and /health/ready for probes.

It runs in threads of its own, so that it can also say that the event loop hangs or that logs are still being
recovered.  Everything is read-only; names of topics, groups and transactional ids are told, records never.

Beyond loopback /metrics is for who logs in by HTTP Basic or a token and may DESCRIBE the cluster, over TLS; /health is
for everybody.
"""

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from tailrace.broker.broker import Broker
from tailrace.broker.config import BrokerConfig, is_loopback
from tailrace.broker.health import Check, check_broker, check_folder, check_fsync
from tailrace.broker.http_gate import HTTPS, HttpGate, HttpRefusedError, http_tls
from tailrace.broker.metrics.snapshot import take_snapshot
from tailrace.broker.server import BrokerServer
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.security.acls import CLUSTER_NAME, Operation, ResourceType
from tailrace.security.tls import ServerTls

_LOOP_PATIENCE_S = 5.0
_LOGIN_PATIENCE_S = 15.0
_JSON = "application/json"

Answer = tuple[int, str, bytes]
"""Status, content type, body."""

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class LoopHangsError(Exception):
    """The event loop did not run anything for seconds."""


class Operations:
    """The operators' address of one broker, open from before its recovery until after its stop."""

    def __init__(self, config: BrokerConfig) -> None:
        """Take the address; must be made on the broker's running event loop.

        Raises ConfigError for an address that must not be used, TailraceError for one that is taken.
        """
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._broker: Broker | None = None
        self._phase = "the logs are being recovered"
        place = _read_place(config)
        host, port = place.host, place.port
        tls = http_tls(config) if place.tls else None
        self._asks_login = place.asks_login
        self._gate: HttpGate | None = None
        operations = self

        class Handler(_Handler):
            routes = {  # noqa: RUF012 - one class per server
                "/metrics": operations.metrics,
                "/health/live": operations.live,
                "/health/ready": operations.ready,
            }
            challenges = staticmethod(operations.challenges)

        try:
            self._server = _Server((host, port), Handler)
            self._server.tls = tls
        except OSError as error:
            raise TailraceError(
                f"metrics cannot listen on {host}:{port}: {error.strerror}",
                fix="Stop what uses it or choose another port with --metrics",
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="operations", daemon=True)
        self._thread.start()
        _log.info(
            "metrics and health",
            extra={"address": f"{'https' if place.tls else 'http'}://{host}:{self.port}"},
        )

    def serving(self, server: BrokerServer) -> None:
        """The logs are recovered and clients may connect."""
        self._gate = HttpGate(server) if self._asks_login else None
        self._broker, self._phase = server.broker, ""

    def stopping(self) -> None:
        """The broker takes no more requests."""
        self._phase = "the broker is stopping"

    def close(self) -> None:
        """Give the address back."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def metrics(self, asker: "Asker") -> Answer:
        """All metrics, in the exposition format that the reader accepts."""
        refusal = self._refusal(asker) if self._asks_login else None
        if refusal is not None:
            return refusal
        from prometheus_client.exposition import choose_encoder

        from tailrace.broker.metrics.families import families

        broker = self._broker
        if broker is None:
            return 503, "text/plain", f"{self._phase}\n".encode()
        try:
            snapshot = self._on_loop(lambda: take_snapshot(broker))
        except LoopHangsError as error:
            return 503, "text/plain", f"{error}\n".encode()
        encoder, content_type = choose_encoder(asker.accept)

        class Collected:
            def collect(self) -> Any:
                return families(snapshot)

        return 200, content_type, encoder(Collected())

    def _refusal(self, asker: "Asker") -> Answer | None:
        if self._gate is None:
            return 503, "text/plain", f"{self._phase}\n".encode()
        try:
            visitor = self._gate.enter(asker.authorization, asker.address).result(_LOGIN_PATIENCE_S)
            may = visitor.ask([(Operation.DESCRIBE, ResourceType.CLUSTER, CLUSTER_NAME)]).result(
                _LOOP_PATIENCE_S
            )
        except HttpRefusedError:
            return 401, "text/plain", b"log in\n"
        except TimeoutError:
            return 503, "text/plain", b"the login takes too long\n"
        return None if may == [True] else (403, "text/plain", b"metrics need DESCRIBE on the cluster\n")

    def challenges(self) -> list[str]:
        """The `WWW-Authenticate` headers of a refusal."""
        return self._gate.challenges if self._gate is not None else []

    def live(self, asker: "Asker") -> Answer:
        """Whether the process does anything at all; a broker that recovers is alive."""
        if self._broker is None:
            return _answer([Check("process", True, self._phase)])
        try:
            self._on_loop(lambda: None)
        except LoopHangsError as error:
            return _answer([Check("process", False, str(error))])
        return _answer([Check("process", True, "the event loop runs")])

    def ready(self, asker: "Asker") -> Answer:
        """Whether clients are served and what they write is made durable."""
        broker = self._broker
        if self._phase or broker is None:
            return _answer([Check("phase", False, self._phase)])
        checks = [Check("phase", True, "clients are served"), check_fsync(broker)]
        try:
            checks += self._on_loop(lambda: check_broker(broker))
        except LoopHangsError as error:
            checks.append(Check("process", False, str(error)))
        return _answer(checks + check_folder(self._config.data_dir, self._config.health_min_free_bytes))

    def _on_loop(self, work: Callable[[], _Result]) -> _Result:
        async def run() -> _Result:
            return work()

        pending = asyncio.run_coroutine_threadsafe(run(), self._loop)
        try:
            return pending.result(_LOOP_PATIENCE_S)
        except (TimeoutError, concurrent.futures.CancelledError):
            pending.cancel()
            raise LoopHangsError(f"the event loop has not answered for {_LOOP_PATIENCE_S:.0f} s") from None


@dataclass(frozen=True, slots=True)
class Asker:
    """What counts of a request."""

    accept: str
    authorization: str
    address: str


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tls: ServerTls | None = None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the thread of the connection, where a handshake keeps nobody else waiting."""
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        self.tls.refresh()
        request.settimeout(_Handler.timeout)
        with contextlib.suppress(OSError), self.tls.context.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of a few paths; a client that sends nothing is dropped after ten seconds."""

    routes: dict[str, Callable[[Asker], Answer]]
    challenges: Callable[[], list[str]]
    timeout = 10
    server_version = "tailrace"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request and close."""
        route = self.routes.get(self.path.partition("?")[0])
        if route is None:
            status, kind, body = 404, "text/plain", ("\n".join(self.routes) + "\n").encode()
        else:
            asked = self.headers
            asker = Asker(asked.get("Accept", ""), asked.get("Authorization", ""), self.client_address[0])
            status, kind, body = route(asker)
        self.send_response(status)
        if status == 401:
            for challenge in self.challenges():
                self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
        """Probes come every few seconds: not a line for each."""


def _answer(checks: list[Check]) -> Answer:
    ok = all(check.ok for check in checks)
    document = {
        "status": "ok" if ok else "failing",
        "checks": {check.name: {"ok": check.ok, "detail": check.detail} for check in checks},
    }
    return 200 if ok else 503, _JSON, json.dumps(document).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class _Place:
    host: str
    port: int
    tls: bool
    asks_login: bool


def _read_place(config: BrokerConfig) -> _Place:
    text = config.metrics_listen
    tls = text.startswith(HTTPS)
    host, colon, port = text.removeprefix(HTTPS).rpartition(":")
    host = host.strip("[]")
    if not colon or "/" in host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"tailrace.metrics.listen '{text}' is not an address", fix="write it as host:port")
    is_open = config.metrics_open or is_loopback(host)
    asks_login = bool(config.authorizer_class_name) and not is_open
    if not (is_open or config.insecure or (asks_login and tls)):
        raise ConfigError(
            f"metrics would be told on {host} to everybody who reaches it",
            fix="Listen on 127.0.0.1, or set authorizer.class.name and write https://host:port, or accept it with "
            "tailrace.metrics.open=true",
        )
    return _Place(host, int(port), tls, asks_login)
