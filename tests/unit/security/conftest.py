"""A broker process whose listeners ask for logins, as the tests of sockets need it."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.fixtures.broker import BrokerFactory

from tailrace.broker.embedded import EmbeddedBroker

Guarded = Callable[..., EmbeddedBroker]


@pytest.fixture
def guarded(broker_factory: BrokerFactory) -> Guarded:
    """SASL_PLAINTEXT on loopback, users `admin` (a super user) and `alice`, password `pw`; an authorizer."""

    def start(**options: Any) -> EmbeddedBroker:
        options.setdefault("listeners", ("SASL_PLAINTEXT://127.0.0.1:0",))
        options.setdefault("super_users", "User:admin;User:alice")
        return broker_factory(
            authorizer_class_name="StandardAuthorizer",
            scram_users=("admin=${env:PW}", "alice=${env:PW}"),
            env={"PW": "pw"},
            **options,
        )

    return start
