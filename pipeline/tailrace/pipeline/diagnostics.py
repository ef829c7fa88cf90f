"""What is wrong with a pipeline file: every problem at once, each with its place, a caret and a fix."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tailrace.changes.errors import ConfigError

SpecPath = tuple[str | int, ...]
"""Where in the document: keys and list indexes from the root."""


# a line whose key says that its value is nobody's business: a problem is drawn without it
_SECRETIVE = re.compile(
    r"^(\s*(?:- )?[\w.-]*(?:password|secret|token|users|dsn)[\w.-]*\s*:\s*)\S.*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One problem; `line` and `column` count from 1.  Codes: E1xx YAML, E2xx fields, E3xx references, E4xx plugins."""

    code: str
    file: str
    line: int
    column: int
    message: str
    fix: str = ""

    def render(self, source: list[str]) -> str:
        """Draw the problem: place and message, the line with a caret, and the fix."""
        parts = [f"{self.file}:{self.line}:{self.column}: {self.code} {self.message}"]
        if 0 < self.line <= len(source):
            shown = _SECRETIVE.sub(r"\1***", source[self.line - 1])
            parts += [f"    {shown}", "    " + " " * (self.column - 1) + "^"]
        if self.fix:
            parts.append(f"    fix: {self.fix}")
        return "\n".join(parts)


class SpecError(ConfigError):
    """The pipeline file has problems; `diagnostics` holds them all, in file order."""

    def __init__(self, file: Path, text: str, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = sorted(set(diagnostics), key=lambda item: (item.line, item.column, item.code))
        lines = text.splitlines()
        count = len(self.diagnostics)
        drawn = "\n\n".join(item.render(lines) for item in self.diagnostics)
        super().__init__(f"{drawn}\n\n{count} problem{'s' if count != 1 else ''} in {file}")

    def as_json(self) -> list[dict[str, Any]]:
        """The problems as plain data, for `--json`."""
        return [asdict(item) for item in self.diagnostics]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the nearest known word, else all of them."""
    candidates = sorted(known)
    near = difflib.get_close_matches(word, candidates, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return "known here: " + ", ".join(candidates) if candidates else ""
