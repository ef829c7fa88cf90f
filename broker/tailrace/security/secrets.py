"""Secrets: a value that no log, error or `repr` shows, and references to one (`${env:}`, `${file:}`).

A reference is resolved once, at start, into a Secret; the configuration keeps the reference.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tailrace.changes.errors import ConfigError

HIDDEN = "***"
_REFERENCE = re.compile(r"\$\{(\w+):([^}]*)\}")


class Secret:
    """A value shown as `***` in every form but `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value, for the one who needs it."""
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


def resolve(
    text: str, option: str, *, folders: Sequence[Path] = (), environ: Mapping[str, str] = os.environ
) -> Secret:
    """The secret that `text` is or refers to: `${env:NAME}`, `${file:/path}`, or the text itself.

    A file must lie inside one of `folders`, links followed (none given: any file that this user may read).  A
    line end at the file's end does not count.  Raises ConfigError, which names the option and never a value.
    """
    found = _REFERENCE.fullmatch(text)
    if found is None:
        if "${" in text:
            raise ConfigError(
                f"the option {option} has a reference inside other text",
                fix="write nothing but ${env:NAME} or ${file:/path}",
            )
        return Secret(text)
    provider, where = found.groups()
    if provider == "env":
        if where not in environ:
            raise ConfigError(f"the option {option} refers to ${where}, which is not set")
        return Secret(environ[where])
    if provider == "file":
        return Secret(_read(Path(where), option, folders))
    raise ConfigError(
        f"the option {option} refers to {provider!r}, which is no provider",
        fix="write ${env:NAME} or ${file:/path}",
    )


def _read(path: Path, option: str, folders: Sequence[Path]) -> str:
    try:
        real = path.resolve(strict=True)
        if folders and not any(real.is_relative_to(folder.resolve()) for folder in folders):
            raise ConfigError(
                f"the option {option} refers to {path}, which is outside tailrace.secret.folders"
            )
        return real.read_text().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"the option {option} refers to {path}: {reason}") from None
