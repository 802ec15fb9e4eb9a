"""A store in a folder."""

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from beam_ray.errors import Stopped, Unusable
from beam_ray.failpoint import reach
from beam_ray.store.objects import NotThere

TEMPORARY = ".tmp-"
"""How the name of a file begins that is being written and is no object yet."""


class Disk:
    """A folder. A key is a path; a file appears at once and whole, by a hard link."""

    def __init__(self, folder: Path):
        self.folder = folder.absolute()
        self.uri = str(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unusable(f"the store {folder} cannot be created: {error.strerror}") from None

    def create(self, key: str, body: bytes) -> bool:
        return self._write(key, body, link=True)

    def put(self, key: str, body: bytes) -> None:
        self._write(key, body, link=False)

    def read(self, key: str) -> bytes:
        try:
            reach("read", key)
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotThere(key) from None
        except OSError as error:
            raise self._fault(error, key) from None

    def read_range(self, key: str, start: int, size: int) -> bytes:
        try:
            reach("read", key)
            with open(self._path(key), "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(start if start >= 0 else max(end + start, 0))
                return file.read(size)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotThere(key) from None
        except OSError as error:
            raise self._fault(error, key) from None

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        start = self._path(prefix.rpartition("/")[0])
        found = []
        try:
            reach("list", prefix)
            for path in _written(start):
                key = path.relative_to(self.folder).as_posix()
                if key.startswith(prefix):
                    try:
                        found.append((key, path.stat().st_size))
                    except FileNotFoundError:
                        continue  # removed by its owner while we looked
        except OSError as error:
            raise self._fault(error, str(start)) from None
        yield from sorted(found)

    def folders(self, prefix: str) -> list[str]:
        start = self._path(prefix)
        try:
            # a writer that died may have left a folder with nothing in it
            with os.scandir(start) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir() and _has_files(entry.path))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._fault(error, str(start)) from None

    def delete(self, key: str) -> None:
        path = self._path(key)
        try:
            reach("delete", key)
            path.unlink(missing_ok=True)
            reach("deleted", key)
        except OSError as error:
            raise self._fault(error, str(path)) from None
        for folder in path.parents:
            if folder == self.folder:
                break
            try:
                folder.rmdir()
            except OSError:
                break  # something else is in it

    def delete_all(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def age(self, key: str) -> float:
        try:
            return time.time() - self._path(key).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            raise NotThere(key) from None

    def strays(self) -> Iterator[tuple[str, int]]:
        for path in sorted(self.folder.rglob(f"{TEMPORARY}*")):
            with contextlib.suppress(FileNotFoundError):
                yield path.relative_to(self.folder).as_posix(), path.stat().st_size

    def _path(self, key: str) -> Path:
        path = Path(os.path.normpath(self.folder / key))
        if not path.is_relative_to(self.folder):
            raise Unusable(f"the key {key!r} is outside the store")
        return path

    def _write(self, key: str, body: bytes, *, link: bool) -> bool:
        path = self._path(key)
        temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{uuid.uuid4().hex}"
        try:
            reach("open", key)
            descriptor = self._open(path, temporary)
            try:
                reach("write", key)
                view = memoryview(body)
                while view:
                    view = view[os.write(descriptor, view) :]
                reach("fsync", key)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            reach("link", key)
            if link:
                os.link(temporary, path)
            else:
                os.replace(temporary, path)
            reach("sync", key)
            self._sync(path.parent)
            reach("kept", key)
            return True
        except FileExistsError:
            # the winner may have linked the file and not yet made the link durable
            self._sync(path.parent)
            return False
        except OSError as error:
            raise self._fault(error, str(path)) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self, path: Path, temporary: Path) -> int:
        for _ in range(100):
            if not path.parent.is_dir():
                self._make(path.parent)
            try:
                return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileNotFoundError:
                continue  # another process removed the folder when it became empty
        raise OSError(errno.ENOENT, "the folder keeps vanishing", str(path.parent))

    def _make(self, folder: Path) -> None:
        missing = [folder]
        while not missing[-1].parent.is_dir():
            missing.append(missing[-1].parent)
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            self._sync(made.parent)

    @staticmethod
    def _sync(folder: Path) -> None:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _fault(self, error: OSError, what: str) -> Stopped:
        if error.errno == errno.ENOSPC:
            free = shutil.disk_usage(self.folder).free
            return Stopped(f"the disk of {self.uri} is full ({free:,} bytes free); free some space, then run the same command again")
        return Stopped(f"{what}: {error.strerror or error}; fix this, then run the same command again")


def _written(folder: Path) -> Iterator[Path]:
    """The files below *folder*, without those that are being written."""
    for where, _, names in os.walk(folder, onerror=_raise):
        yield from (Path(where, name) for name in names if not name.startswith(TEMPORARY))


def _has_files(folder: str) -> bool:
    """Whether anything is below *folder*; a run has files in it, so that most folders are told by their first one."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        deeper = []
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                deeper.append(entry.path)
            elif not entry.name.startswith(TEMPORARY):
                return True
        return any(_has_files(each) for each in deeper)
    return False


def _raise(error: OSError) -> None:
    # a folder that cannot be listed is not an empty one: what is in it would be paid for again
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
