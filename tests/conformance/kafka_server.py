"""Stands in for `kafka-storage.sh format` and `kafka-run-class.sh kafka.Kafka FILE`: our broker from a Kafka file.

What only Kafka has (voters, inter-broker listeners, key stores in Java's format) is translated or left out.
"""

import os
import subprocess
import sys
from pathlib import Path

from tailrace.broker import service
from tailrace.broker.config import OPTIONS, BrokerConfig
from tailrace.broker.options import read_options
from tailrace.broker.server import BrokerServer

_USERS = "scram-users"


def main() -> None:
    """`format … -c FILE --add-scram MECHANISM=[name=N,password=P]`, or `kafka.Kafka FILE`."""
    arguments = sys.argv[1:]
    if arguments[0] == "format":
        _remember_users(Path(arguments[arguments.index("-c") + 1]).parent, arguments)
    else:
        _serve(Path(arguments[1]))


def _remember_users(folder: Path, arguments: list[str]) -> None:
    users = []
    for given in (arguments[i + 1] for i, argument in enumerate(arguments) if argument == "--add-scram"):
        fields = dict(part.split("=", 1) for part in given.partition("=")[2].strip("[]").split(","))
        users.append(f"{fields['name']}={fields['password']}")
    (folder / _USERS).write_text(",".join(users))


def _serve(file: Path) -> None:
    lines = [line.strip() for line in file.read_text().splitlines()]
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    if store := given.pop("ssl.keystore.location", ""):
        given["ssl.keystore.location"] = str(_pem(Path(store), given["ssl.keystore.password"]))
    known: dict[str, object] = {name: value for name, value in given.items() if name in OPTIONS}
    for of_java in ("ssl.truststore.location", "ssl.key.password"):
        known.pop(of_java, None)
    users = file.parent / _USERS
    if users.exists() and users.read_text():
        known["tailrace.scram.users"] = users.read_text()
    config = BrokerConfig(**read_options(OPTIONS, known))

    def tell(_: BrokerServer) -> None:
        for user in filter(None, str(known.get("tailrace.scram.users", "")).split(",")):
            _say(f"Replayed UserScramCredentialRecord creating new entry for {user.partition('=')[0]}")
        _say(f"[KafkaRaftServer nodeId={config.node_id}] Kafka Server started")

    service.run(config, on_ready=tell)


def _pem(store: Path, password: str) -> Path:
    """The key and the certificates of a Java key store (PKCS 12 since Java 9) as one PEM file."""
    pem = store.with_suffix(".pem")
    secret = {**os.environ, "STORE_PASSWORD": password}
    command = [
        "openssl",
        "pkcs12",
        "-in",
        str(store),
        "-nodes",
        "-passin",
        "env:STORE_PASSWORD",
        "-out",
        str(pem),
    ]
    subprocess.run(command, env=secret, check=True, capture_output=True)
    return pem


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
