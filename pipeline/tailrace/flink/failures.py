"""What a failure of the job means: whether a retry can cure it, and what to tell the person who reads it.

Flink hands out chains of Java exceptions.  A chain is told apart by the classes and fixed phrases in it, from the most
telling to the least; what is not known is taken for curable, and the service gives up on it when it keeps coming
back without progress.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tailrace.changes.errors import ConfigError, TailraceError
from tailrace.flink.config import TransformConfig

Causes = Sequence[tuple[str, str]]
"""Java exceptions as (class, message), outermost first."""


_TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True, slots=True)
class Failure:
    """A classified failure: `error` is what to raise when no retry can cure it (any more)."""

    error: TailraceError
    curable: bool


def causes_of(stack_trace: str) -> list[tuple[str, str]]:
    """Read a printed Java stack trace back into its causes.

    Java frames are dropped.  The Python frames of the interpreter inside the JVM, printed innermost first as
    `at /folder/file.function(file.py:3)`, become a Python traceback in the message.
    """
    causes: list[_Cause] = []
    in_message = False
    for line in stack_trace.splitlines():
        head = re.match(r"(?:Caused by: )?([a-z][\w.]*\.[A-Z][\w.$]*)(?:: (.*))?$", line)
        if head and (not causes or line.startswith("Caused by: ")):
            causes.append(_Cause(head.group(1), [head.group(2) or ""], []))
            in_message = True
        elif re.match(r"\s+(at |\.\.\. \d+ more|Suppressed:)", line):
            in_message = False
            frame = re.match(r"\s+at (/.*)\.([^./]+)\(([^()]+\.py):(\d+)\)", line)
            if frame and causes:
                path = f"{frame.group(1).rpartition('/')[0]}/{frame.group(3)}"
                causes[-1].frames.append(f'  File "{path}", line {frame.group(4)}, in {frame.group(2)}')
        elif in_message:
            causes[-1].message.append(line)
    return [(cause.kind, cause.text()) for cause in causes]


@dataclass(frozen=True, slots=True)
class _Cause:
    kind: str
    message: list[str]
    frames: list[str]

    def text(self) -> str:
        message = "\n".join(self.message)
        if not self.frames:
            return message
        raised = re.sub(r"^<class '(?:\w+\.)*(\w+)'>", r"\1", message)
        return "\n".join([_TRACEBACK, *reversed(self.frames), raised])


def refused_sql(transform: TransformConfig, causes: Causes) -> ConfigError:
    """What Flink's planner did not accept, with the line of the pipeline file."""
    where = f"transform {transform.name}"
    text = causes[0][1] if causes else "no reason given"
    for kind, message in causes:
        if kind == "python.BadFunction":
            return ConfigError(f"{where}: {message}", fix="correct the function, then start again")
        validation = re.match(
            r"From line (\d+), column (\d+) to line \d+, column \d+: (.*)", message, re.DOTALL
        )
        if validation:
            line, column, what = int(validation.group(1)), int(validation.group(2)), validation.group(3)
            return _sql_error(transform, line, column, what)
        parse = re.search(r"^(?:SQL parse failed\. )?(.*?) at line (\d+), column (\d+)", message, re.DOTALL)
        if parse and "Parse" in kind:
            what = (
                parse.group(1)
                .replace("Encountered", "unexpected")
                .replace("Lexical error", "unexpected character")
            )
            return _sql_error(transform, int(parse.group(2)), int(parse.group(3)), what)
        text = message or text
    return ConfigError(f"{_place(transform, 1)}{where}: {_first_line(text)}", fix="correct the SQL")


def classify(causes: Causes, transforms: Sequence[TransformConfig]) -> Failure:
    """Tell what ended (or restarted) the running job."""
    python = _python_error(causes, transforms)
    if python is not None:
        return Failure(python, curable=False)
    for kind, message in causes:
        for name, phrase, (what, fix) in _FATAL:
            if name in kind and phrase in message:
                return Failure(
                    TailraceError(f"the Flink job stopped: {what}: {_first_line(message)}", fix=fix), False
                )
    kind, message = causes[-1] if causes else ("", "the process ended without a word")
    reason = f"{kind.rpartition('.')[2]}: {_first_line(message)}" if kind else message
    return Failure(
        TailraceError(f"the Flink job failed: {reason}", fix="read logs/transform.log"), curable=True
    )


_SCHEMA = (
    "records of a topic do not fit the transform",
    "adapt the transform to the topic's schema, start again",
)
_VALUE = ("a value cannot be computed", "guard the expression in the SQL (TRY_CAST, NULLIF, CASE)")
_STATE = (
    "its checkpoint does not fit the transforms",
    "restore the former SQL, or remove the folder flink/checkpoints of the data directory to compute the results again",
)
_FATAL: tuple[tuple[str, str, tuple[str, str]], ...] = (
    ("SchemaMismatchException", "", _SCHEMA),
    (
        "",
        "is NOT NULL, however, a null value is being written",
        ("a key column of the result is null", _VALUE[1]),
    ),
    ("ArithmeticException", "", _VALUE),
    ("NumberFormatException", "", _VALUE),
    ("DateTimeException", "", _VALUE),
    ("DateTimeParseException", "", _VALUE),
    ("TableRuntimeException", "", _VALUE),
    (
        "RecordTooLargeException",
        "",
        ("a result is too large for its topic", "raise the topic's max.message.bytes"),
    ),
    ("AuthorizationException", "", ("the broker refuses access", "grant the pipeline's user the right")),
    (
        "SaslAuthenticationException",
        "",
        ("the broker refuses the login", "check sasl.username and sasl.password"),
    ),
    ("InvalidTxnTimeoutException", "", ("the transaction timeout is above the broker's limit", "lower it")),
    ("StateMigrationException", "", _STATE),
    ("", "Failed to rollback to checkpoint/savepoint", _STATE),
    ("OutOfMemoryError", "", ("Java ran out of memory", "raise flink.memory, or read less in one transform")),
)
"""(part of the class, part of the message, (what, fix)): the same input would fail the same way again."""


def _python_error(causes: Causes, transforms: Sequence[TransformConfig]) -> TailraceError | None:
    """A function of the user that raised: its name, the line, and the exception."""
    files = _files(transforms)
    for _, message in reversed(causes):
        if _TRACEBACK not in message:
            continue
        frames = re.findall(r'File "([^"]+)", line (\d+), in (\S+)', message)
        ours = [frame for frame in frames if frame[0] in files]
        if not ours:
            continue
        behind = message[message.rindex('  File "') :].splitlines()[1:]
        raised = next((text for text in behind if text and not text[0].isspace()), "an exception")
        path, line, function = ours[-1]
        transform, udf = files[path]
        return TailraceError(
            f"transform {transform}: function {udf} raised {raised} at {path}:{line}, in {function}",
            fix="correct the function, then start again: the job goes on at its last checkpoint",
        )
    return None


def _files(transforms: Sequence[TransformConfig]) -> Mapping[str, tuple[str, str]]:
    files: dict[str, tuple[str, str]] = {}
    for transform in transforms:
        for udf in transform.udfs:
            path = (transform.base_dir / udf.python.rpartition(":")[0]).resolve()
            files.setdefault(str(path), (transform.name, udf.name))
    return files


def _sql_error(transform: TransformConfig, line: int, column: int, what: str) -> ConfigError:
    shown = transform.sql.splitlines()[line - 1].strip() if line <= len(transform.sql.splitlines()) else ""
    where = f"SQL line {line}, column {column}: {shown}"
    return ConfigError(
        f"{_place(transform, line)}transform {transform.name}: {_first_line(what)} ({where})",
        fix="correct the SQL",
    )


def _place(transform: TransformConfig, line: int) -> str:
    return f"{transform.file}:{transform.line + line - 1}: " if transform.file else ""


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].rstrip(".")
