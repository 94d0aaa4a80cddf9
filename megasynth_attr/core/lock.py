"""A folder that only one process writes into; the kernel lets go when that process ends, even by -9."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from megasynth_attr.core.errors import ConfigError
from megasynth_attr.core.files import storage_errors

LOCK = ".lock"


def take_lock(folder: Path, what: str) -> IO[str]:
    """Create ``folder`` if need be and return the file that holds it until it is closed; ``what`` names its content.

    ConfigError if another process holds it.
    """
    with storage_errors(what, folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ConfigError(f"another run is writing to {folder}; wait for it, or choose another out=") from None
    return file
