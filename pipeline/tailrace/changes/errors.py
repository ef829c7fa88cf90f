"""The root of every error that Tailrace raises on purpose.

    TailraceError             exit code 1: what happened, and the next step
    |-- ConfigError           exit code 2: the spec, an option or an address is wrong
    |-- SourceDataError       a value that cannot be carried without loss; names table, column and LSN
    `-- FencedError           another instance took over; this one must stop and never be restarted blindly

Messages name the thing, where, and the next step; never a row value, never a secret.
"""

import errno


class TailraceError(Exception):
    """Something a person must know about: `what` happened and how to `fix` it."""

    exit_code = 1
    retriable = False
    """Whether the same attempt may succeed later without a person's help."""

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}" if self.fix else self.what


class ConfigError(TailraceError):
    """The pipeline file, an option or an address is wrong; a retry cannot help."""

    exit_code = 2


class SourceDataError(TailraceError):
    """A source value that the column's type plan cannot hold without loss."""


class FencedError(TailraceError):
    """A newer instance owns the resource (slot, transactional id, table epoch)."""


def operating_system_error(error: OSError, what: str = "") -> TailraceError:
    """An OSError that nobody foresaw, in words: what the system said, of which file, and a step to try."""
    said = error.strerror or type(error).__name__
    where = f": {error.filename}" if error.filename else ""
    fixes = {
        errno.ENOSPC: "make room on the disk, then start again; nothing acknowledged is lost",
        errno.EDQUOT: "make room on the disk, then start again; nothing acknowledged is lost",
        errno.EFBIG: "raise the limit of file sizes (ulimit -f), then start again",
        errno.EACCES: "check the rights of this user there",
        errno.EROFS: "the file system is mounted read-only: choose another folder",
        errno.EMFILE: "raise the limit of open files (ulimit -n), then start again",
    }
    text = f"{said}{where}"
    return TailraceError(f"{what}: {text}" if what else text, fix=fixes.get(error.errno or 0, ""))
