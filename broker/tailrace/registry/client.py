"""A small client of a Confluent-compatible registry: what our parts need, with the answers that never change cached."""

import http.client
import json
import ssl
import threading
import time
from typing import Any
from urllib.parse import quote, urlsplit

from tailrace.broker.client.errors import RetryableError
from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.registry.login import RegistryLogin

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_ONE_TRY_S = 10.0
_FIXES = {
    401: "check basic.auth.user.info, or where the token comes from",
    403: "give this user rights on the subject, or use another one: basic.auth.user.info",
    409: "change the schema, or set the subject's compatibility level",
}


class RegistryRefusedError(TailraceError):
    """The registry answered with an error; `status` and `error_code` are its own."""

    def __init__(self, what: str, *, status: int, error_code: int, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.status = status
        self.error_code = error_code


class RegistryUnavailableError(TailraceError):
    """The registry gave no usable answer in time."""

    retriable = True


class RegistryClient:
    """Registers and reads schemas; safe to use from several threads.

    Ids and schemas never change once given out, so both directions are cached for ever.  A registry
    that does not answer is tried again until `timeout_s` has passed, then RegistryUnavailableError names its address.
    """

    def __init__(self, url: str, *, login: RegistryLogin | None = None, timeout_s: float = 30.0) -> None:
        """A password is sent over https only, or to this machine.  Raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"'{url}' is not a registry address", fix="write it like http://127.0.0.1:8081")
        login = login or RegistryLogin()
        login.check(url)
        self._headers = {"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE}
        self._login = login
        self._url = url
        self._tls = ssl.create_default_context(cafile=login.authorities) if parts.scheme == "https" else None
        self._host, self._port, self._prefix = parts.hostname, parts.port, parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, str] = {}

    def register(self, subject: str, schema: str) -> int:
        """Register a schema under a subject and return its global id; the same schema gives the same id."""
        known = self._ids.get((subject, schema))
        if known is not None:
            return known
        answer = self._call("POST", f"/subjects/{quote(subject, safe='')}/versions", {"schema": schema})
        self._ids[subject, schema] = int(answer["id"])
        return int(answer["id"])

    def schema(self, schema_id: int) -> str:
        """The schema of an id."""
        if schema_id not in self._schemas:
            self._schemas[schema_id] = str(self._call("GET", f"/schemas/ids/{schema_id}")["schema"])
        return self._schemas[schema_id]

    def latest(self, subject: str) -> tuple[int, str] | None:
        """Id and schema of the newest version, None for a subject that is not there (yet)."""
        try:
            answer = self._call("GET", f"/subjects/{quote(subject, safe='')}/versions/latest")
        except RegistryRefusedError as error:
            if error.status == 404:
                return None
            raise
        return int(answer["id"]), str(answer["schema"])

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the level of one subject."""
        self._call("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": level})

    def close(self) -> None:
        """Close the connection; a later call opens a new one."""
        with self._lock:
            self._drop()

    def _call(self, verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout_s
        pause = 0.05
        with self._lock:
            while True:
                try:
                    status, answer = self._authorized(verb, path, body)
                    if status < 500:
                        break
                    cause: object = answer.get("message", status)
                except (OSError, http.client.HTTPException, ValueError, RetryableError) as error:
                    self._drop()
                    cause = error
                if time.monotonic() > deadline:
                    raise RegistryUnavailableError(
                        f"the schema registry at {self._url} does not answer ({cause})",
                        fix="check that it runs and that the address is right",
                    )
                time.sleep(pause)
                pause = min(pause * 2, 1.0)
        if status >= 400:
            raise RegistryRefusedError(
                f"the schema registry at {self._url} refused {verb} {path}: {answer.get('message', status)}",
                status=status,
                error_code=int(answer.get("error_code", status)),
                fix=_FIXES.get(status, ""),
            )
        return answer

    def _authorized(self, verb: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """Once, or again with a new token where the one of before counts no longer."""
        renewable = self._login.tokens is not None and "Authorization" in self._headers
        status, answer = self._once(verb, path, body)
        if status == 401 and renewable:
            del self._headers["Authorization"]
            status, answer = self._once(verb, path, body)
        return status, answer

    def _once(self, verb: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        if "Authorization" not in self._headers:
            authorization = self._login.authorization(timeout_s=_ONE_TRY_S)
            self._headers |= {"Authorization": authorization} if authorization else {}
        if self._connection is None:
            self._connection = (
                http.client.HTTPConnection(self._host, self._port, timeout=_ONE_TRY_S)
                if self._tls is None
                else http.client.HTTPSConnection(
                    self._host, self._port, timeout=_ONE_TRY_S, context=self._tls
                )
            )
        payload = None if body is None else json.dumps(body)
        self._connection.request(verb, self._prefix + path, payload, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status in (401, 403):  # not every proxy that asks for a login speaks JSON
            return response.status, {"message": response.reason}
        return response.status, json.loads(answer or b"{}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
