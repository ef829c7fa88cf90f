"""The broker that a suite runs against: ours, or Apache Kafka itself to see that the suite judges rightly."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.fixtures.apache_kafka import ApacheKafka

from tailrace.broker.embedded import EmbeddedBroker

_KAFKAS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


class Target(StrEnum):
    """Which broker."""

    TAILRACE = "tailrace"
    APACHE_KAFKA = "apache-kafka"


@contextmanager
def running(target: Target, folder: Path, *, authorizer: bool = False) -> Iterator[str]:
    """The bootstrap address of a broker on a fresh `folder`; `authorizer`: ACLs count, but not for whoever is unnamed."""
    if target is Target.TAILRACE:
        options: dict[str, Any] = {
            "authorizer_class_name": "StandardAuthorizer",
            "super_users": "User:ANONYMOUS",
        }
        with EmbeddedBroker(folder, **(options if authorizer else {})) as broker:
            yield broker.bootstrap
        return
    kafka = ApacheKafka(folder, properties=_KAFKAS if authorizer else {})
    try:
        kafka.start()
        yield kafka.bootstrap
    finally:
        kafka.kill()
