"""Subscriptions by regular expression, in RE2's syntax as Kafka has it: matched in time linear in the topics' names.

Python's own `re` would not do: it backtracks, and a client's pattern could stop the event loop for ever.
"""

from collections.abc import Iterable

from tailrace.broker.coordinator.consumer_group.errors import GroupRefusal
from tailrace.broker.protocol import ErrorCode

_MOST_BYTES = 1 << 20  # of one compiled pattern; RE2 refuses what needs more


def matching(pattern: str, names: Iterable[str]) -> frozenset[str]:
    """The names that the pattern matches as a whole.  Raises GroupRefusal: INVALID_REGULAR_EXPRESSION."""
    import re2  # loaded with the first pattern

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_BYTES
    try:
        compiled = re2.compile(pattern, options)
    except (re2.error, UnicodeError) as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error, re2.error) else str(error)
        raise GroupRefusal(
            ErrorCode.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex `{pattern}` is not a valid regular expression: {reason}.",
        ) from None
    return frozenset(name for name in names if compiled.fullmatch(name))
