"""The codecs of kafka-python and kio, by API key, kind and version."""

import warnings
from importlib import import_module
from typing import Any

from tailrace.broker.protocol import APIS, ApiKey

with warnings.catch_warnings():
    # kafka-python reads its schemas through a function that Python 3.11 deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.protocol.api_message import ApiMessage

    for _module in ("admin", "consumer", "producer", "metadata", "sasl"):
        import_module(f"kafka.protocol.{_module}")

from kio.schema.index import api_key_map


def _kafka_python_classes() -> dict[tuple[int, str], Any]:
    found: dict[tuple[int, str], Any] = {}
    todo = [ApiMessage]
    while todo:
        for cls in todo.pop().__subclasses__():
            todo.append(cls)
            if cls._class_version is None:
                found[cls.API_KEY, cls.type] = cls
    return found


KAFKA_PYTHON = _kafka_python_classes()
"""kafka-python's message class by (API key, "request" or "response")."""

KAFKA_PYTHON_APIS = [key for key in APIS if (key, "request") in KAFKA_PYTHON]
"""The APIs that kafka-python has; kio has all."""


def kio_class(key: ApiKey, kind: str, version: int) -> Any:
    """kio's message class."""
    module = import_module(f"kio.schema.{api_key_map[key]}.v{version}.{kind}")
    return getattr(module, getattr(APIS[key], kind).__name__)
