"""A connection to the registry: impatient, and what it says of its TLS reaches the requests."""

import asyncio

from tailrace.registry.deadlines import ImpatientProtocol

TLS = "tailrace.tls"
"""In a request's state: the connection's `ssl.SSLObject`, None without TLS."""


class RegistryConnection(ImpatientProtocol):
    """uvicorn tells applications nothing of the certificates of clients."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, TLS: transport.get_extra_info("ssl_object")}
