"""Decoded frames, kept in shared memory or a folder for all processes and runs of this machine.

One file per frame, depth before colour, as the arrays lie in memory, then their CRC-32; it is mapped, not read. Its
name is the SHA-256 of what identifies the frame's content, so a file that changes is decoded again. Files appear whole
and never change; the frame of one that a disk has damaged is decoded again, too.

A run never replaces frames that it uses itself: which of them are kept would not matter to it, as scenes are drawn at
random, and it would write all the time. When the limit is reached, frames that no run has used since this one began
make way; then nothing more is kept.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from megasynth_attr.core import run_folder
from megasynth_attr.core.errors import EnvironmentProblem, MegaSynthError
from megasynth_attr.core.files import storage_errors, write_durably
from megasynth_attr.core.run_folder import Kind, locked
from megasynth_attr.core.temporary import TMP, remove_leftovers, working_folder
from megasynth_train.data.frames import StoredFrame
from megasynth_train.training.settings import DataSettings

SHARED_MEMORY = Path("/dev/shm")
FORMAT = "megasynth-attr frame cache 1"
KIND = Kind("frame cache", "cache.json", FORMAT)
PIXEL_BYTES = 7  # 4 of depth, 3 of colour
_FRAMES, _USED = "frames", "used"  # the folder of the files, and a count of their bytes
_CHECK_BYTES = 4
_NAME = re.compile("[0-9a-f]{64}")
_CLEARED = 0.9  # of the limit is what remains at most when frames make way
_BEGAN = time.time()


class FrameCache:
    """The frames in a folder, at most ``most_bytes`` of them; frames used since ``began`` stay."""

    def __init__(self, folder: Path, most_bytes: int, began: float = _BEGAN) -> None:
        self.folder, self.most_bytes, self.began = folder, most_bytes, began
        self._takes_more = True
        self._sound: set[str] = set()  # names of files whose CRC-32 this process found right

    def read(self, frame: StoredFrame) -> tuple[np.ndarray, np.ndarray]:
        """Return what ``frame.decode`` does; the arrays may be read-only."""
        if not (stamp := frame.stamp()):
            return frame.decode()
        file = self.folder / _FRAMES / hashlib.sha256(f"{stamp}|{frame.image_size_hw}".encode()).hexdigest()
        if (kept := self._kept(file, frame.image_size_hw)) is not None:
            return kept
        rgb, depth_z = frame.decode()
        if self._takes_more and frame.is_intact():
            content = depth_z.tobytes() + rgb.tobytes()
            self._keep(file, content + _check_value(content))
        return rgb, depth_z

    def room_bytes(self) -> int:
        """Return how much may still be added."""
        return max(0, self.most_bytes - sum(size for _, size, _ in self._files()))

    def _kept(self, file: Path, size_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray] | None:
        height, width = size_hw
        size = height * width * PIXEL_BYTES
        try:
            content = np.memmap(file, np.uint8, "r", shape=(size + _CHECK_BYTES,))
            if (found := file.stat()).st_size != content.size:  # a power cut came before the disk had it all
                return None
        except (OSError, ValueError):  # it is not there, or too short
            return None
        if file.name not in self._sound:
            if content[size:].tobytes() != _check_value(content[:size].data):
                return None
            self._sound.add(file.name)
        if found.st_mtime < self.began:
            with suppress(OSError):  # it is another user's, or has just made way
                os.utime(file)
        depth_z, rgb, _ = np.split(np.asarray(content), [height * width * 4, size])
        return rgb.reshape(height, width, 3), depth_z.view(np.float32).reshape(height, width)

    def _keep(self, file: Path, content: bytes) -> None:
        try:
            with _named(), working_folder(file.parent / TMP, "frame") as folder:
                write_durably(folder / file.name, content)
                self._takes_more = self._add(folder / file.name, len(content))
        except (OSError, EnvironmentProblem) as error:
            self._takes_more = False
            warnings.warn(
                f"data.cache: no more frames are kept in {self.folder} ({error}); the others are decoded each time",
                stacklevel=2,
            )

    def _add(self, new: Path, size: int) -> bool:
        """Move a file to the others and count its ``size``, unless that would exceed the limit: then return False."""
        count, final = self.folder / _USED, self.folder / _FRAMES / new.name
        with locked(self.folder, KIND.name, wait=True):
            try:
                used = int(count.read_text())
            except (OSError, ValueError):  # the first frame, or the count was cut off
                used = self.most_bytes
            if used + size > self.most_bytes:
                used = self._make_room()  # which counts anew: a killed process may have counted what it did not move
            fits = used + size <= self.most_bytes
            if fits:
                count.write_text(str(used + size * (not final.exists())))  # another process may have been faster
                new.replace(final)
        return fits

    def _make_room(self) -> int:
        """Remove frames that were not used since ``began``, if too many bytes are used; return how many are left."""
        files = sorted(self._files())
        used = sum(size for _, size, _ in files)
        enough = self.most_bytes * _CLEARED
        for last_used, size, path in files:
            if last_used >= self.began or used <= enough:
                break
            path.unlink(missing_ok=True)
            used -= size
        return used

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return time of last use, bytes and path of all frames, and of nothing else that lies there."""
        found = []
        with suppress(FileNotFoundError), os.scandir(self.folder / _FRAMES) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        found.append((entry.stat().st_mtime, entry.stat().st_size, Path(entry.path)))
        return found


def _check_value(content: bytes | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(_CHECK_BYTES, "little")


def check_cache(settings: DataSettings) -> None:
    """Raise ConfigError or EnvironmentProblem, with nothing changed, if ``data.cache`` cannot be used."""
    if (cache := _cache(settings)) is None:
        return
    with _named():
        run_folder.check(cache.folder, KIND)
    existing = next(path for path in (cache.folder, *cache.folder.parents) if path.exists())
    free, room = shutil.disk_usage(existing).free, cache.room_bytes()
    if room > free:
        raise EnvironmentProblem(
            f"data.cache_gib={settings.cache_gib:g} does not fit: {cache.folder} may grow by {room / 2**30:.3g} GiB, "
            f"and {free / 2**30:.3g} GiB are free there; lower data.cache_gib or choose another data.cache="
        )


def open_cache(settings: DataSettings) -> FrameCache | None:
    """Return the cache of ``data.cache``, its folder created if need be; None if the key is empty. Errors as above."""
    if (cache := _cache(settings)) is not None:
        with _named():
            run_folder.share(cache.folder, KIND, {"format": FORMAT}, lambda record: record)
            with storage_errors("a decoded frame", cache.folder):
                (cache.folder / _FRAMES).mkdir(exist_ok=True)
                remove_leftovers(cache.folder / _FRAMES / TMP)
    return cache


def _cache(settings: DataSettings) -> FrameCache | None:
    if not settings.cache:
        return None
    folder = Path(settings.cache).absolute()
    if folder == SHARED_MEMORY:  # which belongs to everybody
        folder /= f"megasynth-frames-{os.getuid()}"
        if os.path.lexists(folder) and (folder.is_symlink() or folder.stat().st_uid != os.getuid()):
            raise EnvironmentProblem(
                f"{folder} is a link or another user's, who could put frames into it; remove it, or choose another "
                "data.cache="
            )
    return FrameCache(folder, int(settings.cache_gib * 2**30))


@contextmanager
def _named() -> Iterator[None]:
    """Let errors about a folder name the key that chose it."""
    try:
        yield
    except MegaSynthError as error:
        raise type(error)(str(error).replace(" out=", " data.cache=")) from error
