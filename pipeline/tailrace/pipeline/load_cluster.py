"""Options of the clients under `broker:` and `registry:`, by Kafka's and Confluent's names, checked at their places.

broker: {mode: external, bootstrap: "kafka:9093", security.protocol: SASL_SSL, sasl.mechanism: SCRAM-SHA-512,
         sasl.username: shop, sasl.password: "${env:KAFKA_PASSWORD}", ssl.ca.location: ca.pem}
registry: {url: "https://registry:8081", basic.auth.user.info: "${env:REGISTRY_LOGIN}"}
"""

from dataclasses import dataclass
from typing import Any

from tailrace.broker.client.security import (
    OPTIONS,
    PLAINTEXT,
    ClientSecurity,
    OptionError,
    read_option,
    read_security,
)
from tailrace.changes import ConfigError
from tailrace.pipeline.diagnostics import did_you_mean
from tailrace.pipeline.document import Document
from tailrace.registry.login import OPTIONS as LOGIN_OPTIONS
from tailrace.registry.login import USER_INFO, RegistryLogin, read_login


@dataclass(frozen=True, slots=True)
class ClusterLogin:
    """How the pipeline logs in to the brokers and to the registry."""

    security: ClientSecurity = PLAINTEXT
    registry_login: RegistryLogin | None = None


def take_cluster_login(document: Document) -> ClusterLogin:
    """Take the options out of the document's data, so that no secret stays in it; note what is wrong with them."""
    security = _take_security(document)
    return ClusterLogin(security, _take_registry_login(document, security))


def _dotted(document: Document, section: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The section, and the options taken out of it: what has a dot in its name belongs to the client."""
    found = document.data.get(section)
    if not isinstance(found, dict):
        return {}, {}
    return found, {name: found.pop(name) for name in list(found) if "." in name}


def _take_security(document: Document) -> ClientSecurity:
    section, given = _dotted(document, "broker")
    wrong = False
    for name, value in given.items():
        if name in OPTIONS and OPTIONS[name].secret and isinstance(value, str):
            document.hide(("broker", name), value)
        try:
            read_option(name, value, document.file.parent)
        except OptionError as error:
            wrong = True
            code = "E203" if name in OPTIONS else "E202"
            document.report(code, ("broker", name), error.what, error.fix or did_you_mean(name, OPTIONS))
    if given and section.get("mode", "embedded") != "external":
        document.report(
            "E302",
            ("broker", next(iter(given))),
            f"`{next(iter(given))}` belongs to mode: external",
            "add mode: external, or remove it: the built-in broker of a run is for this machine only",
        )
    elif not wrong:
        try:
            return read_security(given, document.file.parent)
        except OptionError as error:
            document.report("E301", ("broker", error.option), error.what, error.fix)
    return PLAINTEXT


def _take_registry_login(document: Document, security: ClientSecurity) -> RegistryLogin | None:
    section, given = _dotted(document, "registry")
    if isinstance(given.get(USER_INFO), str):
        document.hide(("registry", USER_INFO), given[USER_INFO])
    for name in given.keys() - set(LOGIN_OPTIONS):
        document.report(
            "E202",
            ("registry", name),
            f"'{name}' is not known here",
            f"known here: {', '.join(LOGIN_OPTIONS)}",
        )
    url = section.get("url")
    if given and not isinstance(url, str) and not _has_authorizer(document):
        name = next(iter(given))
        document.report(
            "E301",
            ("registry", name),
            f"`{name}` needs a registry of its own",
            "add url: https://host:8081",
        )
        return None
    try:
        login = read_login(given, document.file.parent, security)
    except OptionError as error:
        document.report("E203", ("registry", error.option), error.what, error.fix)
        return None
    try:
        if login is not None and isinstance(url, str):
            login.check(url)
    except ConfigError as error:
        document.report("E203", ("registry", next(iter(given))), error.what, error.fix)
    return login


def _has_authorizer(document: Document) -> bool:
    """Whether the broker of the run has one: then its registry asks for a login too."""
    broker = document.data.get("broker")
    config = broker.get("config") if isinstance(broker, dict) else None
    return isinstance(config, dict) and bool(config.get("authorizer.class.name"))
