"""Levels of this process's loggers: Python's, by the names that Kafka has for them.  Nothing here is durable.

A logger without a level of its own has that of the nearest one above it; the last one above all is `root`.
"""

import logging
from collections.abc import Mapping

from tailrace.broker.config_entries import SET_ON_LOGGER, ConfigEntry
from tailrace.broker.log import LogError
from tailrace.broker.protocol.errors import ErrorCode

_ROOT = "root"
_LEVELS = {
    "TRACE": logging.DEBUG // 2,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
}
_UNKNOWN_TYPE = 0  # the config type that Kafka tells for levels


def describe() -> list[ConfigEntry]:
    """Every logger with the level that holds for it."""
    return [
        ConfigEntry(name, _level(name), SET_ON_LOGGER, _UNKNOWN_TYPE, read_only=False, documentation="")
        for name in _names()
    ]


def check(levels: Mapping[str, str | None]) -> None:
    """Raise LogError where `set_levels` may not be called, in Kafka's words: INVALID_CONFIG, INVALID_REQUEST."""
    names = _names()
    for name, level in levels.items():
        if name not in names:
            raise LogError(ErrorCode.INVALID_CONFIG, f"Logger {name} does not exist!")
        if level is None and name == _ROOT:
            raise LogError(
                ErrorCode.INVALID_REQUEST, "Removing the log level of the root logger is not allowed"
            )
        if level is not None and level not in _LEVELS:
            raise LogError(
                ErrorCode.INVALID_CONFIG,
                f"Cannot set the log level of {name} to {level} as it is not a supported log level. "
                f"Valid log levels are {', '.join(sorted(_LEVELS))}",
            )


def set_levels(levels: Mapping[str, str | None]) -> None:
    """Give loggers levels of their own; None takes it back."""
    for name, level in levels.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level is None else _LEVELS[level])


def _names() -> list[str]:
    return [_ROOT, *sorted(logging.root.manager.loggerDict)]


def _level(name: str) -> str:
    number = logging.getLogger(name).getEffectiveLevel()
    return next((level for level, most in _LEVELS.items() if number <= most), "FATAL")
