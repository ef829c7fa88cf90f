"""Bearer tokens for a login: from a file, or from a token endpoint (RFC 6749, 4.4: client credentials)."""

import base64
import json
import urllib.error
import urllib.request
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote, urlencode, urlsplit

from tailrace.broker.client.errors import LoginError, RetryableError
from tailrace.broker.client.security import ClientSecurity
from tailrace.security.secrets import Secret

_MOST_BYTES = 1 << 20


def get_token(security: ClientSecurity, *, timeout_s: float) -> Secret:
    """A token for the next login, read or asked for anew: one that was renewed counts.

    Raises LoginError where there is none, RetryableError where the endpoint does not answer.
    """
    parts = urlsplit(security.token_url)
    if parts.scheme == "file":
        path = Path(unquote(parts.path))
        try:
            token = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise LoginError(f"the token in {path} cannot be read: {reason}") from None
    else:
        token = _ask(security, timeout_s)
    if not token or not token.isascii() or "\x01" in token:
        raise LoginError(
            f"{security.token_url} holds no token", fix="check sasl.oauthbearer.token.endpoint.url"
        )
    return Secret(token)


def _ask(security: ClientSecurity, timeout_s: float) -> str:
    assert security.client_secret is not None
    login = f"{quote(security.client_id, safe='')}:{quote(security.client_secret.reveal(), safe='')}"
    form = {"grant_type": "client_credentials"} | ({"scope": security.scope} if security.scope else {})
    request = urllib.request.Request(
        security.token_url,
        urlencode(form).encode(),
        {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}", "Accept": "application/json"},
    )
    answer: HTTPResponse
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s) as answer:
            found = json.loads(answer.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise RetryableError(f"the token endpoint {security.token_url} answers {error.code}") from None
        raise LoginError(
            f"the token endpoint {security.token_url} refuses client '{security.client_id}' with status {error.code}",
            fix="check sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and sasl.oauthbearer.scope",
        ) from None
    except (OSError, HTTPException) as error:
        raise RetryableError(f"the token endpoint {security.token_url} does not answer: {error}") from None
    except ValueError:
        found = None
    token = found.get("access_token") if isinstance(found, dict) else None
    return token if isinstance(token, str) else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        raise urllib.error.HTTPError(req.full_url, code, "a redirect is not followed", headers, fp)
