"""A YAML document as plain data plus the place of every key and value.

Parsed first, interpolated after: only string leaves are looked at, so a value can never change the
document's shape.  YAML 1.2 (`no` stays a string), duplicate keys and custom tags are errors.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tailrace.changes.errors import ConfigError
from tailrace.pipeline.diagnostics import Diagnostic, SpecError, SpecPath

_REFERENCE = re.compile(r"\$\{(env|var|file):([^}]*)\}")
_LOOKALIKE = re.compile(r"\$\{([^}]*)\}")


@dataclass(slots=True)
class Document:
    """Plain data of a pipeline file, the place of each path in it, and the problems found so far."""

    file: Path
    text: str
    data: dict[str, Any]
    places: dict[SpecPath, tuple[int, int]]
    problems: list[Diagnostic] = field(default_factory=list)

    def report(self, code: str, path: SpecPath, message: str, fix: str = "") -> None:
        """Note a problem at a path; a path without a place of its own takes its nearest parent's."""
        where = path
        while where and where not in self.places:
            where = where[:-1]
        line, column = self.places.get(where, (1, 1))
        self.problems.append(Diagnostic(code, str(self.file), line, column, message, fix))

    def hide(self, path: SpecPath, secret: str) -> None:
        """Blank a secret out of the line at its path, which a problem beside it would draw."""
        line, _ = self.places[path]
        lines = self.text.splitlines(keepends=True)
        lines[line - 1] = lines[line - 1].replace(secret, "*" * len(secret)) if secret else lines[line - 1]
        self.text = "".join(lines)

    def raise_problems(self) -> None:
        """Raise SpecError when there is any problem."""
        if self.problems:
            raise SpecError(self.file, self.text, self.problems)


def load_document(
    file: Path,
    environment: Mapping[str, str] | None = None,
    *,
    kind: str = "pipeline file",
    example: str = "version: 1` and `name: ...",
) -> Document:
    """Read and interpolate a YAML file; `kind` and `example` are for its errors.

    `${env:X}` (required), `${env:X:-default}`, `${var:x}` (declared under `vars:`) and `${file:path}`
    (relative to the pipeline file) expand; nothing else does.  Raises ConfigError when the file cannot
    be read and SpecError when it is not YAML; other problems are noted in the document.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot read {file}: {error.strerror}", fix=f"give the path of a {kind}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text", fix="save it as UTF-8") from error
    root = _parse(file, text)
    document = Document(file, text, {}, {(): (1, 1)})
    if not isinstance(root, CommentedMap):
        document.report("E101", (), f"a {kind} is a map", f"start with `{example}`")
        document.raise_problems()
    document.data = _plain(root, (), document)
    _interpolate(document, os.environ if environment is None else environment)
    return document


def _parse(file: Path, text: str) -> Any:
    yaml = YAML(typ="rt")
    try:
        return yaml.load(StringIO(text))
    except DuplicateKeyError as error:
        problem = (error.problem or "duplicate key").splitlines()[0]
        raise _syntax(file, text, "E102", error, problem, "keep one of the two") from None
    except MarkedYAMLError as error:
        hint = (
            'quote a value that holds ${...} inside { }: "${...}"'
            if "${" in text
            else "check the indentation"
        )
        raise _syntax(file, text, "E100", error, error.problem or "not valid YAML", hint) from None
    except YAMLError as error:
        raise SpecError(
            file, text, [Diagnostic("E100", str(file), 1, 1, str(error).splitlines()[0])]
        ) from None


def _syntax(file: Path, text: str, code: str, error: MarkedYAMLError, problem: str, fix: str) -> SpecError:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return SpecError(file, text, [Diagnostic(code, str(file), line, column, problem, fix)])


def _plain(node: Any, path: SpecPath, document: Document) -> Any:
    """Turn ruamel's nodes into dicts, lists and scalars, noting where each one stands."""
    if isinstance(node, TaggedScalar):
        document.report("E103", path, f"the tag {node.tag.value} is not allowed", "remove it")
        return str(node.value)
    if isinstance(node, CommentedMap):
        result: dict[str, Any] = {}
        for key, value in node.items():
            line, column = node.lc.key(key)
            place = (*path, str(key))
            document.places[place] = (line + 1, column + 1)
            result[str(key)] = _plain(value, place, document)
        return result
    if isinstance(node, CommentedSeq):
        items = []
        for index, value in enumerate(node):
            line, column = node.lc.item(index)
            document.places[(*path, index)] = (line + 1, column + 1)
            items.append(_plain(value, (*path, index), document))
        return items
    if isinstance(node, str):
        return str(node)
    if isinstance(node, bool):
        return bool(node)
    if isinstance(node, int):
        return int(node)
    return float(node) if isinstance(node, float) else node


def _interpolate(document: Document, environment: Mapping[str, str]) -> None:
    variables = document.data.get("vars")
    if isinstance(variables, dict):
        document.data["vars"] = _expanded(variables, ("vars",), document, environment, {})
    for key in document.data:
        if key != "vars":
            document.data[key] = _expanded(
                document.data[key], (key,), document, environment, document.data.get("vars") or {}
            )


def _expanded(
    value: Any,
    path: SpecPath,
    document: Document,
    environment: Mapping[str, str],
    variables: Mapping[str, Any],
) -> Any:
    if isinstance(value, dict):
        return {
            key: _expanded(item, (*path, key), document, environment, variables)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [
            _expanded(item, (*path, index), document, environment, variables)
            for index, item in enumerate(value)
        ]
    if not isinstance(value, str) or "${" not in value:
        return value
    for unknown in _LOOKALIKE.finditer(value):
        if not _REFERENCE.fullmatch(unknown.group()):
            document.report(
                "E112",
                path,
                f"'{unknown.group()}' is not a reference",
                "use ${env:NAME}, ${var:name} or ${file:path}",
            )

    def resolve(match: re.Match[str]) -> str:
        found = _look_up(match[1], match[2], document, environment, variables)
        if found is None:
            fix = {
                "env": f"set it, or give a default: ${{env:{match[2]}:-...}}",
                "var": f"declare it under vars: {match[2]}: ...",
                "file": "check the path; it is relative to the pipeline file",
            }[match[1]]
            document.report("E110", path, f"{match[0]} has no value", fix)
            return ""
        return found

    return _REFERENCE.sub(resolve, value)


def _look_up(
    kind: str, name: str, document: Document, environment: Mapping[str, str], variables: Mapping[str, Any]
) -> str | None:
    if kind == "env":
        variable, given, default = name.partition(":-")
        return environment.get(variable) or (default if given else environment.get(variable))
    if kind == "var":
        value = variables.get(name)
        return None if value is None else str(value)
    try:
        return (document.file.parent / name).read_text(encoding="utf-8").rstrip("\n")
    except OSError:
        return None
