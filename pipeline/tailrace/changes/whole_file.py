"""Files that a reader finds whole: the old content or the new one, after a kill or a full disk too."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


def replace_file(path: Path, parts: Iterable[bytes | memoryview], *, durable: bool) -> None:
    """Put a file of `parts` (bytes), one after the other, in the place of `path`.

    Where `durable`, the content is synced before it gets its name, so that a power cut leaves no empty file;
    the name itself is as durable as its folder.  OSError names the file, which the system leaves out when
    the disk is full; what stood there before is untouched then.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            for part in parts:
                rest = memoryview(part)
                while rest:  # a full disk may take a part only
                    rest = rest[file.write(rest) :]
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = str(path)
        raise


def replace_json(path: Path, document: Mapping[str, object], *, durable: bool) -> None:
    """Put a document in the place of `path`, as `replace_file` does."""
    replace_file(path, [json.dumps(document).encode()], durable=durable)
