"""Secrets: shown in no form, and read only from where they may be."""

import copy
import json
import logging
import pickle
from dataclasses import dataclass
from pathlib import Path

import pytest

from tailrace.broker.config import BrokerConfig
from tailrace.changes.errors import ConfigError
from tailrace.security.secrets import Secret, resolve

CANARY = "canary-7f3a"


@dataclass
class _Holder:
    password: Secret


def logged(secret: Secret) -> str:
    return logging.LogRecord("name", logging.INFO, "path", 1, "%s %r", (secret, secret), None).getMessage()


def test_a_secret_is_hidden_in_every_form_but_the_one_that_reveals_it() -> None:
    secret = Secret(CANARY)
    forms = [
        repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", f"{secret:>20}", logged(secret),
        repr([secret]), repr({"a": secret}), repr(_Holder(secret)), repr((secret,)), str(BaseException(secret)),
    ]  # fmt: skip
    assert not any(CANARY in form for form in forms)
    assert secret.reveal() == CANARY
    assert secret == Secret(CANARY) and secret != CANARY
    for write in (pickle.dumps, json.dumps, copy.deepcopy):
        with pytest.raises(TypeError) as error:
            write(secret)
        assert CANARY not in str(error.value)
    assert not hasattr(secret, "__dict__")


def test_the_options_of_a_broker_show_no_secret(tmp_path: Path) -> None:
    config = BrokerConfig(tmp_path, scram_users=(f"alice={CANARY}",), ssl_key_password=CANARY)
    assert CANARY not in repr(config) and CANARY not in str(config)
    assert config.passwords()["alice"].reveal() == CANARY


def test_a_reference_is_resolved_from_the_environment_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{CANARY}\n")
    assert resolve("${env:PW}", "o", environ={"PW": CANARY}).reveal() == CANARY
    assert resolve(f"${{file:{file}}}", "o").reveal() == CANARY
    assert resolve(CANARY, "o").reveal() == CANARY


@pytest.mark.parametrize(
    "text",
    ["x${env:PW}", "${env:PW}x", "${env:PW}${env:PW}", "${sys:PW}", "${env:NOT}", "${file:/nowhere}", "${"],
)
def test_a_reference_that_cannot_be_obeyed_names_the_option_and_shows_nothing(text: str) -> None:
    with pytest.raises(ConfigError, match="option o") as error:
        resolve(text, "o", environ={"PW": CANARY})
    assert CANARY not in str(error.value)


def test_a_file_outside_the_allowed_folders_is_not_read_whatever_path_leads_to_it(tmp_path: Path) -> None:
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    allowed.mkdir()
    other.mkdir()
    (other / "password").write_text(CANARY)
    (allowed / "link").symlink_to(other / "password")
    (tmp_path / "allowed2").mkdir()
    (tmp_path / "allowed2" / "password").write_text(CANARY)
    (allowed / "password").write_text(CANARY)
    for path in (
        other / "password",
        allowed / ".." / "other" / "password",
        allowed / "link",
        tmp_path / "allowed2" / "password",
    ):
        with pytest.raises(ConfigError, match="outside"):
            resolve(f"${{file:{path}}}", "o", folders=[allowed])
    assert resolve(f"${{file:{allowed / 'password'}}}", "o", folders=[allowed]).reveal() == CANARY


def test_a_file_that_is_no_text_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"\xff" + CANARY.encode())
    with pytest.raises(ConfigError, match="not UTF-8") as error:
        resolve(f"${{file:{tmp_path / 'password'}}}", "o")
    assert CANARY not in str(error.value)
