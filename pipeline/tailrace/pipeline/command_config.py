"""The file of `--command-config`: a Java properties file with the client options of `load_cluster`.

security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.username=ops
sasl.password=${file:/run/secrets/kafka}
schema.registry.basic.auth.user.info=${env:REGISTRY_LOGIN}
"""

import re
from pathlib import Path

from tailrace.broker.client.security import OPTIONS, OptionError, read_security
from tailrace.changes import ConfigError
from tailrace.pipeline.diagnostics import did_you_mean
from tailrace.pipeline.load_cluster import ClusterLogin
from tailrace.registry.login import OPTIONS as LOGIN_OPTIONS
from tailrace.registry.login import USER_INFO, read_login
from tailrace.security.secrets import resolve

_REGISTRY = "schema.registry."
_PROPERTY = re.compile(r"(?P<name>[^\s=:]+)[ \t]*[=: \t][ \t]*(?P<value>.*)", re.S)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.S)
_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def read_command_config(file: Path) -> ClusterLogin:
    """Read and check it; relative paths start from its folder.  Raises ConfigError, which shows no value of a secret."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"cannot read {file}: {reason}", fix="give the path of a properties file: --command-config"
        ) from None
    try:
        given = _properties(text)
        resolved: dict[str, object] = {}
        for name, value in given.items():
            secret = name == _REGISTRY + USER_INFO or (name in OPTIONS and OPTIONS[name].secret)
            resolved[name] = resolve(value, name) if secret else value
        of_registry = {
            name: resolved.pop(_REGISTRY + name) for name in LOGIN_OPTIONS if _REGISTRY + name in resolved
        }
        security = read_security(resolved, file.parent)
        return ClusterLogin(security, read_login(of_registry, file.parent, security))
    except OptionError as error:
        fix = error.fix or did_you_mean(
            error.option, [*OPTIONS, *(_REGISTRY + name for name in LOGIN_OPTIONS)]
        )
        raise ConfigError(f"{file}: {error.what}", fix=fix) from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {error.what}", fix=error.fix) from None


def _properties(text: str) -> dict[str, str]:
    """As java.util.Properties reads them: comments, continued lines, escapes.  Raises ConfigError."""
    found: dict[str, str] = {}
    # a line that ends with an odd number of backslashes goes on in the next one
    joined = re.sub(r"(?<!\\)((?:\\\\)*)\\\n[ \t]*", r"\1", text)
    for number, line in enumerate(joined.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped[0] in "#!":
            continue
        match = _PROPERTY.fullmatch(stripped)
        if match is None:
            raise ConfigError(f"line {number} is not name=value", fix="write it like sasl.username=ops")
        found[match["name"]] = _ESCAPE.sub(_unescaped, match["value"])
    return found


def _unescaped(match: re.Match[str]) -> str:
    escaped = match[1]
    return chr(int(escaped[1:], 16)) if len(escaped) > 1 else _ESCAPED.get(escaped, escaped)
