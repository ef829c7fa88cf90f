"""Frames over one socket, in plain text or inside TLS."""

import socket
import ssl
from collections.abc import Sequence

from tailrace.broker.client.errors import BrokerError, LoginError, RetryableError
from tailrace.broker.client.partition import Address
from tailrace.broker.client.security import ClientSecurity
from tailrace.broker.protocol import ErrorCode

_PIECES_PER_CALL = 512
LARGEST_FRAME = 1 << 30
_TLS_ALERT = b"\x15\x03"
_HOST_MISMATCH = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, _IP_ADDRESS_MISMATCH
_UNKNOWN_AUTHORITY = (2, 7, 18, 19, 20, 21)  # 7: another one of the same name


class Wire:
    """A socket that is connected, and inside TLS where the options say so.  Not thread-safe, but for `shutdown`."""

    def __init__(self, address: Address, security: ClientSecurity, *, timeout_s: float) -> None:
        """Raises RetryableError where nobody answers, LoginError for a TLS that cannot come about, OSError for the rest."""
        self._address = address
        self._security = security
        self.was_shut = False
        """Whether `shutdown` was called: then an end of the connection is no news."""
        try:
            self._socket = socket.create_connection(address, timeout=timeout_s)
        except OSError as error:
            raise RetryableError(f"broker {address} cannot be reached: {error}") from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if security.protocol.tls:
                self._socket = security.tls_context().wrap_socket(self._socket, server_hostname=address.host)
        except ssl.SSLError as error:
            self.close()
            raise self.explained(error) from error
        except BaseException:
            self.close()
            raise

    def send(self, pieces: list[memoryview], timeout_s: float) -> None:
        """Send all pieces, one after the other; OSError where that fails."""
        self._socket.settimeout(timeout_s)
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.sendall(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            return
        while pieces:
            sent = self._socket.sendmsg(pieces[:_PIECES_PER_CALL])
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = pieces[0][sent:]

    def receive(self, timeout_s: float, *, largest: int = LARGEST_FRAME) -> bytearray:
        """The next frame without its size.  OSError; BrokerError for what is no frame of this protocol."""
        self._socket.settimeout(timeout_s)
        start = self._exactly(4)
        size = int.from_bytes(start, "big")
        if start.startswith(_TLS_ALERT) and size > largest:
            raise speaks_tls(self._address, self._security)
        if size > largest:
            raise BrokerError(
                f"what listens at {self._address} does not speak the Kafka protocol",
                error=ErrorCode.NETWORK_EXCEPTION,
                fix="check the port",
            )
        return self._exactly(size)

    def shutdown(self) -> None:
        """End the connection under a call that blocks; the one method for other threads and signal handlers."""
        self.was_shut = True
        try:
            # not SSLSocket's own, which takes the TLS away from under the other thread
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        """Close."""
        self._socket.close()

    def explained(self, error: ssl.SSLError) -> Exception:
        """The error of TLS in words with the next step; the error itself where there are no better ones."""
        return _explained(error, self._address, self._security)

    def _exactly(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        while view:
            received = self._socket.recv_into(view)
            if received == 0:
                raise ConnectionError("the broker closed the connection")
            view = view[received:]
        return buffer


def speaks_tls(address: Address, security: ClientSecurity) -> LoginError:
    """The error for a client without TLS at a listener with it."""
    wanted = "SASL_SSL" if security.protocol.sasl else "SSL or SASL_SSL"
    return LoginError(
        f"broker {address} speaks TLS on this port, and security.protocol is {security.protocol}",
        fix=f"set security.protocol to {wanted}, or check the port",
    )


def speaks_plain(address: Address, security: ClientSecurity) -> LoginError:
    """The error for a client with TLS at a listener without it."""
    wanted = "SASL_PLAINTEXT" if security.protocol.sasl else "PLAINTEXT"
    return LoginError(
        f"broker {address} speaks no TLS on this port, and security.protocol is {security.protocol}",
        fix=f"use the port of its TLS listener, or set security.protocol to {wanted}",
    )


def wants_certificate(address: Address, security: ClientSecurity, why: str) -> LoginError:
    """The error for a client without a certificate, or with one that the broker does not trust."""
    what = "refuses the client's certificate" if security.certificate else "wants a client certificate"
    return LoginError(
        f"broker {address} {what} ({why})",
        fix="give one that its authorities signed: ssl.certificate.location and ssl.key.location",
    )


def _explained(error: ssl.SSLError, address: Address, security: ClientSecurity) -> Exception:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error, address, security)
    reason = error.reason or ""
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE", "HTTP_REQUEST"):
        return speaks_plain(address, security)
    told = reason.lower().replace("_", " ")
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return wants_certificate(address, security, told)
    if "PROTOCOL" in reason or "HANDSHAKE" in reason:
        return LoginError(
            f"broker {address} and this client have no kind of TLS in common ({told})",
            fix="let the broker speak TLS 1.2 or 1.3; if it wants a client certificate, give ssl.certificate.location",
        )
    return error


def _untrusted(error: ssl.SSLCertVerificationError, address: Address, security: ClientSecurity) -> LoginError:
    if error.verify_code in _HOST_MISMATCH:
        return LoginError(
            f"the certificate of broker {address} is for another host ({error.verify_message.rstrip('.')})",
            fix="connect by a name in the certificate, or let the cluster advertise one; only where no name can be "
            "right, set ssl.endpoint.identification.algorithm to none",
        )
    if error.verify_code in _UNKNOWN_AUTHORITY:
        known = f"in {security.authorities}" if security.authorities else "among the system's own"
        return LoginError(
            f"the certificate of broker {address} is signed by nobody {known} ({error.verify_message})",
            fix="give the PEM file of who signs the brokers' certificates: ssl.ca.location",
        )
    return LoginError(
        f"the certificate of broker {address} does not count ({error.verify_message})",
        fix="renew the broker's certificate, or check the clock of this machine",
    )


def as_views(parts: Sequence[bytes | bytearray | memoryview]) -> list[memoryview]:
    """What `send` takes."""
    return [memoryview(part) for part in parts]
