"""Changes of single configs (KIP-339): set, delete, append to or subtract from a list."""

from collections.abc import Callable, Iterable, Mapping

from tailrace.broker.log import LogError
from tailrace.broker.protocol import ErrorCode
from tailrace.broker.protocol.messages import IncrementalAlterableConfig

SET, DELETE, APPEND, SUBTRACT = range(4)


def changed(
    configs: Mapping[str, str],
    changes: Iterable[IncrementalAlterableConfig],
    list_value: Callable[[str], str | None],
) -> dict[str, str]:
    """What is set after the changes; `list_value` is the present value of a config that is a list.

    Raises LogError: INVALID_REQUEST, INVALID_CONFIG.
    """
    after = dict(configs)
    for change in changes:
        _apply(change, after, list_value(change.name))
    return after


def value_of(change: IncrementalAlterableConfig) -> str:
    """What a config shall be, or INVALID_REQUEST."""
    if change.value is None:
        raise LogError(ErrorCode.INVALID_REQUEST, f"config {change.name} has no value")
    return change.value


def _apply(change: IncrementalAlterableConfig, configs: dict[str, str], present: str | None) -> None:
    operation = change.config_operation
    if operation == DELETE:
        configs.pop(change.name, None)
        return
    if operation not in (SET, APPEND, SUBTRACT):
        raise LogError(ErrorCode.INVALID_REQUEST, f"there is no config operation {operation}")
    value = value_of(change)
    if operation == SET:
        configs[change.name] = value
        return
    if present is None:
        raise LogError(ErrorCode.INVALID_CONFIG, f"config {change.name} is not a list", fix="Set it instead")
    configs[change.name] = _edited(present, value, operation)


def _edited(present: str, change: str, operation: int) -> str:
    items = [item for item in present.split(",") if item]
    changed = [item.strip() for item in change.split(",") if item.strip()]
    if operation == SUBTRACT:
        return ",".join(item for item in items if item not in changed)
    return ",".join(items + [item for item in changed if item not in items])
