"""Where a registry may listen: beyond loopback only with logins and TLS, or where somebody accepts it."""

from pathlib import Path
from typing import Any

import pytest

from tailrace.changes.errors import ConfigError
from tailrace.registry.service import run

ON = {"authorizer_class_name": "StandardAuthorizer", "super_users": "User:a"}


@pytest.mark.parametrize(
    ("place", "options", "told"),
    [
        ("0.0.0.0:0", {}, "without authentication and TLS"),
        ("0.0.0.0:0", ON, "without TLS"),
        ("https://0.0.0.0:0", {"ssl_keystore_location": "{pem}"}, "without authentication"),
        ("https://127.0.0.1:0", ON, "needs a certificate"),
        (
            "https://127.0.0.1:0",
            {"ssl_keystore_location": "/nowhere.pem"},
            "cannot be read from /nowhere.pem",
        ),
        ("http://127.0.0.1:0", {}, "is not an address"),
    ],
)
def test_a_registry_that_would_show_passwords_or_schemas_to_the_network_does_not_start(
    tmp_path: Path, certificates: Any, place: str, options: dict[str, str], told: str
) -> None:
    pem = str(certificates.folder / "broker.pem")
    given = {name: value.replace("{pem}", pem) for name, value in options.items()}
    with pytest.raises(ConfigError, match=told):
        run(tmp_path / "data", listen="127.0.0.1:0", registry_listen=place, options=given)
    assert not (tmp_path / "data").exists()
