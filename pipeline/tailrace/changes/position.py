"""Positions in a Postgres WAL.

A source position is the end LSN of a source transaction: a stream may resume only at commit
boundaries (LSNs of single messages tie).  PostgreSQL manual, pg_lsn type.
"""

from tailrace.changes.errors import ConfigError

Lsn = int
"""A byte position in the WAL, as an unsigned 64-bit integer held in a Python int."""


def format_lsn(lsn: Lsn) -> str:
    """Render an LSN as Postgres does: ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> Lsn:
    """Parse ``16/B374D848``; raise ConfigError for anything else."""
    high, slash, low = text.partition("/")
    try:
        if not slash:
            raise ValueError
        return (int(high, 16) << 32) | int(low, 16)
    except ValueError:
        raise ConfigError(
            f"'{text}' is not an LSN", fix="write it as Postgres does, like 16/B374D848"
        ) from None
