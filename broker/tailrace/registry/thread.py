"""The registry's REST server in threads of its own, beside the broker that it stores its schemas in."""

import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable

import uvicorn

from tailrace.broker.client import Client, ClientSecurity
from tailrace.broker.http_gate import HttpGate
from tailrace.registry.connection import RegistryConnection
from tailrace.registry.http import create_app
from tailrace.registry.store import Store
from tailrace.security.tls import ServerTls

_REQUEST_TIMEOUT_S = 30.0
_MOST_CONNECTIONS = 1_000  # who comes beyond them is told to come again (503)


class RegistryThread:
    """uvicorn on a socket of ours; `failure` is why it could not start."""

    def __init__(self, listener: socket.socket, security: ClientSecurity, tls: ServerTls | None) -> None:
        self._listener, self._security, self._tls = listener, security, tls
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._client: Client | None = None
        self.failure: BaseException | None = None

    def start_beside(self, bootstrap: str, gate: HttpGate | None, started: Callable[[str], None]) -> None:
        """Start without waiting, then call `started(url)`; a failure ends the process with SIGTERM.

        Without a gate the registry is open to everybody.
        """
        threading.Thread(target=self._start_and_tell, args=(bootstrap, gate, started), daemon=True).start()

    def _start_and_tell(self, bootstrap: str, gate: HttpGate | None, started: Callable[[str], None]) -> None:
        try:
            started(self._start(bootstrap, gate))
        except BaseException as error:  # noqa: BLE001 - reported by the main thread, which ends the process
            self.failure = error
            os.kill(os.getpid(), signal.SIGTERM)

    def _start(self, bootstrap: str, gate: HttpGate | None) -> str:
        """Replay the store and begin to answer; return the url."""
        self._client = Client(
            bootstrap,
            client_id="schema-registry",
            security=self._security,
            request_timeout_s=_REQUEST_TIMEOUT_S,
        )
        store = Store(self._client)
        store.open()
        self._server = uvicorn.Server(
            uvicorn.Config(
                create_app(store, gate),
                http=RegistryConnection,
                log_level="warning",
                access_log=False,
                lifespan="off",
                log_config=None,
                ws="none",
                server_header=False,
                limit_concurrency=_MOST_CONNECTIONS,
                proxy_headers=False,  # or a client could say that it has another address
                ssl_context_factory=None if self._tls is None else self._tls_context,
            )
        )
        self._thread = threading.Thread(target=self._serve, name="schema-registry", daemon=True)
        self._thread.start()
        host, port = self._listener.getsockname()[:2]
        return f"{'http' if self._tls is None else 'https'}://{host}:{port}"

    def _tls_context(self, *_: object) -> ssl.SSLContext:
        """A context that takes the certificates of each handshake from the files as they are then."""
        tls = self._tls
        assert tls is not None
        context = tls.context

        def renew(connection: ssl.SSLObject, *_: object) -> None:
            tls.refresh()
            connection.context = tls.context

        context.sni_callback = renew
        return context

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
        if self._client is not None:
            self._client.close()
        self._listener.close()
