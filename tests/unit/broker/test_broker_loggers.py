"""Levels of the broker's loggers over the wire."""

import logging

import pytest
from tests.fixtures.broker import BrokerFactory
from tests.fixtures.configs import APPEND, DELETE, LOGGER, SET, Change, change, described, listed, replace
from tests.fixtures.wire import WireClient

from tailrace.broker import loggers
from tailrace.broker.protocol import ErrorCode

BROKER, BROKER_PARTS = "tailrace.broker.broker", "tailrace.broker"
LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}


def level(wire: WireClient, logger: str) -> str | None:
    return described(wire, LOGGER, "1", logger)[logger].value


def test_every_logger_is_told_with_the_level_that_holds_for_it(wire: WireClient) -> None:
    found = described(wire, LOGGER, "1")
    assert {"root", BROKER, BROKER_PARTS} <= set(found)
    assert {(e.value, e.config_source, e.read_only, e.is_sensitive) for e in found.values()} >= {
        ("INFO", 6, False, False)
    }
    assert listed(wire, LOGGER) == ["1"]


def test_a_level_holds_for_what_is_below_until_it_is_taken_back(wire: WireClient) -> None:
    assert change(wire, LOGGER, "1", (BROKER_PARTS, SET, "ERROR")) == (0, "")
    assert [level(wire, logger) for logger in ("root", BROKER_PARTS, BROKER)] == ["INFO", "ERROR", "ERROR"]
    assert change(wire, LOGGER, "1", (BROKER, SET, "TRACE")) == (0, "")
    assert level(wire, BROKER) == "TRACE"
    assert change(wire, LOGGER, "1", (BROKER, DELETE, None), ("root", SET, "WARN")) == (0, "")
    assert level(wire, BROKER) == "ERROR"
    assert change(wire, LOGGER, "1", (BROKER_PARTS, DELETE, None)) == (0, "")
    assert level(wire, BROKER) == "WARN"


WRONG: list[tuple[Change, ErrorCode, str]] = [
    (("nobody", SET, "INFO"), ErrorCode.INVALID_CONFIG, "Logger nobody does not exist!"),
    (("nobody", DELETE, None), ErrorCode.INVALID_CONFIG, "Logger nobody does not exist!"),
    ((BROKER, SET, "WARNING"), ErrorCode.INVALID_CONFIG, f"level of {BROKER} to WARNING as it is not"),
    ((BROKER, SET, "debug"), ErrorCode.INVALID_CONFIG, "Valid log levels are DEBUG, ERROR, FATAL, INFO"),
    ((BROKER, SET, None), ErrorCode.INVALID_REQUEST, BROKER),
    ((BROKER, APPEND, "INFO"), ErrorCode.INVALID_REQUEST, "nothing else"),
    (("root", DELETE, None), ErrorCode.INVALID_REQUEST, "level of the root logger is not allowed"),
]  # fmt: skip


def test_what_kafka_refuses_is_refused_and_no_level_of_the_request_is_set(wire: WireClient) -> None:
    for wrong, code, said in WRONG:
        error, message = change(wire, LOGGER, "1", (BROKER_PARTS, SET, "DEBUG"), wrong)
        assert error == code and said in message
    assert change(wire, LOGGER, "9", (BROKER, SET, "DEBUG"))[0] == ErrorCode.INVALID_REQUEST
    assert replace(wire, LOGGER, "1", root="DEBUG")[0] == ErrorCode.INVALID_REQUEST
    assert change(wire, LOGGER, "1", (BROKER, SET, "DEBUG"), validate_only=True) == (0, "")
    assert {level(wire, logger) for logger in ("root", BROKER_PARTS, BROKER)} == {"INFO"}


def test_levels_are_gone_with_the_process(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    with WireClient(broker.bootstrap) as wire:
        assert change(wire, LOGGER, "1", ("root", SET, "ERROR")) == (0, "")
    broker.stop()
    with WireClient(broker.start().bootstrap) as wire:
        assert level(wire, "root") == "INFO"


@pytest.mark.parametrize("name", LEVELS)
def test_a_logger_obeys_its_level(name: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tailrace.broker.test_of_levels")
    try:
        loggers.set_levels({logger.name: name})
        for number in LEVELS.values():
            logger.log(number, "%d", number)
        assert [record.levelno for record in caplog.records] == [
            n for n in LEVELS.values() if n >= LEVELS[name]
        ]
    finally:
        loggers.set_levels({logger.name: None})
    assert logger.level == logging.NOTSET
