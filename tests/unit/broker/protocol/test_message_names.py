"""All messages share one namespace."""

import importlib
import pkgutil
from collections import Counter

from tailrace.broker.protocol import messages


def test_no_message_hides_another_of_its_name() -> None:
    names: Counter[str] = Counter()
    for found in pkgutil.iter_modules(messages.__path__, f"{messages.__name__}."):
        module = importlib.import_module(found.name)
        names.update(name for name, kind in vars(module).items() if _is_defined_in(kind, found.name))
    assert names.total() > 200
    assert [name for name, count in names.items() if count > 1] == []
    assert all(hasattr(messages, name) for name in names)


def _is_defined_in(kind: object, module: str) -> bool:
    return isinstance(kind, type) and kind.__module__ == module
