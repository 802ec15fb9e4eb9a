"""
Bytes under keys, on a disk or on S3, with one promise: ``create`` has one winner.

An object is written whole, if absent, and its presence is the commit. A doubtful answer is
settled by reading back: a network that loses the reply to a create that succeeded makes
any later try look like a loss, so the status alone proves nothing.
"""

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import stamina

from beam_ray.errors import Stopped, Unusable
from beam_ray.failpoint import reach

FORMAT = 1
PATIENCE_S = 600.0
"""Seconds for which a store that answers with faults is asked again."""
CONNECT_S = 5.0
READ_S = 60.0
"""Seconds without a byte after which a server's answer is given up, and asked for again."""

TEMPORARY = ".tmp-"
"""How the name of a file begins that is being written and is no object yet."""

_NO_ACCESS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed")
"""What S3 says with status 400 to credentials that will not do; other words come with 401 or 403."""

_NO_USE = ("InvalidBucketName", "PermanentRedirect", "NotImplemented", "MethodNotAllowed")
"""What asking again does not change."""


class NotThere(KeyError):
    """No object has this key."""


class Objects(Protocol):
    """A place where bytes are kept under keys such as ``runs/261123-a3f1/run.json``."""

    uri: str

    def create(self, key: str, body: bytes) -> bool:
        """Keep *body* under *key* if nothing is there; whether it was ours that was kept."""

    def put(self, key: str, body: bytes) -> None:
        """Keep *body* under *key*, whatever was there."""

    def read(self, key: str) -> bytes:
        """The bytes under *key*; raises NotThere."""

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Every key that begins with *prefix*, with its size in bytes, in order."""

    def folders(self, prefix: str) -> list[str]:
        """The names directly below *prefix* that have something below them, in order."""

    def delete(self, key: str) -> None:
        """Take away what is under *key*, if anything."""

    def age(self, key: str) -> float:
        """Seconds since what is under *key* was written, by the store's own clock; raises NotThere."""

    def strays(self) -> Iterator[tuple[str, int]]:
        """What writers that died have left and no reader ever sees: keys, with their sizes."""


def open_objects(uri: str, *, proven: bool = False) -> Objects:
    """
    The objects at *uri*: a folder, or ``s3://bucket/prefix``; made ready if new.

    *proven* says that the caller's own driver has already put the store to the proof.

    Raises:
        Unusable: it cannot be used, or does not honour put-if-absent.
    """
    objects: Objects = S3(uri, proven=proven) if uri.startswith("s3://") else Disk(Path(uri))
    if not proven:
        _prove(objects)
    return objects


def _prove(objects: Objects) -> None:
    try:
        kept = objects.read("store.json")
    except NotThere:
        objects.create("store.json", json.dumps({"format": FORMAT, "proof": uuid.uuid4().hex}).encode())
        kept = objects.read("store.json")
    try:
        found = json.loads(kept)["format"]
    except (ValueError, KeyError, TypeError):
        raise Unusable(f"{objects.uri}/store.json is not what beam_ray writes; use an empty place or another store") from None
    if found != FORMAT:
        raise Unusable(f"{objects.uri} has store format {found}; this version of beam_ray reads {FORMAT}")
    # the same bytes again: a store that overwrites is found out, and a sound one behind it is not harmed
    if objects.create("store.json", kept):
        raise Unusable(f"{objects.uri} does not honour put-if-absent (If-None-Match), so two writers could overwrite each other; use another store")


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
            return sorted(entry.name for entry in start.iterdir() if entry.is_dir() and any(_written(entry))) if start.is_dir() else []
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


def _raise(error: OSError) -> None:
    # a folder that cannot be listed is not an empty one: what is in it would be paid for again
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


class _Doubtful(Exception):
    """The store did not say what became of the request."""


class S3:
    """A bucket and a prefix. The endpoint and the credentials are those of the AWS environment."""

    def __init__(self, uri: str, *, proven: bool = False):
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        parts = urlsplit(uri)
        self.uri = uri.rstrip("/")
        self.bucket, self.prefix = parts.netloc, parts.path.strip("/")
        self._answered = proven
        if not self.bucket:
            raise Unusable(f"{uri!r} names no bucket; a store on S3 is s3://bucket/prefix")
        # a connection may break in the middle of a body, and then it is the operating system that says so
        self._faults = (BotoCoreError, ClientError, OSError)
        custom = bool(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))
        # our own tries are the only ones: botocore's would turn a create that won into a 412
        config = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            max_pool_connections=32,
            s3={"addressing_style": "path" if custom else "auto"},
        )
        try:
            self._client = boto3.session.Session().client("s3", config=config)
        except (*self._faults, ValueError) as error:
            raise Unusable(f"{self.uri}: {error}") from None

    def create(self, key: str, body: bytes) -> bool:
        mine = uuid.uuid4().hex

        def once() -> bool:
            try:
                reach("put", key)
                self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=body, IfNoneMatch="*", Metadata={"attempt": mine})
                self._answered = True
                reach("answered", key)
                return True
            except self._faults as error:
                self._refuse_if_final(error)
                winner = self._attempt_of(key)
                if winner is None:
                    raise _Doubtful(str(error)) from None
                return winner == mine

        return bool(self._settle(key, once))

    def put(self, key: str, body: bytes) -> None:
        self._ask("put", key, lambda: self._client.put_object(Bucket=self.bucket, Key=self._key(key), Body=body))

    def read(self, key: str) -> bytes:
        def get() -> bytes:
            return bytes(self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].read())

        return bytes(self._ask("read", key, get))

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        for page in self._pages(prefix):
            for entry in page.get("Contents", ()):
                name = entry["Key"][len(self.prefix) + 1 :] if self.prefix else entry["Key"]
                if not name.endswith("/"):
                    yield name, entry["Size"]

    def folders(self, prefix: str) -> list[str]:
        prefix = prefix.rstrip("/") + "/"
        names = [entry["Prefix"] for page in self._pages(prefix, "/") for entry in page.get("CommonPrefixes", ())]
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in names)

    def delete(self, key: str) -> None:
        def take() -> None:
            self._client.delete_object(Bucket=self.bucket, Key=self._key(key))
            reach("deleted", key)

        self._ask("delete", key, take)

    def age(self, key: str) -> float:
        head = self._ask("read", key, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(key)))
        # both times are the server's: a clock of ours that is wrong must not make anything old
        told = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float((told - head["LastModified"]).total_seconds())

    def strays(self) -> Iterator[tuple[str, int]]:
        yield from ()

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        extra = {"Delimiter": delimiter} if delimiter else {}
        while True:
            page = self._ask("list", prefix, lambda: self._client.list_objects_v2(Bucket=self.bucket, Prefix=self._key(prefix), **extra, **token))  # noqa: B023
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _key(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _attempt_of(self, key: str) -> str | None:
        try:
            reach("recall", key)
            head = self._client.head_object(Bucket=self.bucket, Key=self._key(key))
        except self._faults as error:
            if _status(error) == 404:
                return None
            raise _Doubtful(str(error)) from None
        return str(head.get("Metadata", {}).get("attempt", ""))

    def _ask(self, call: str, key: str, request: Callable[[], Any]) -> Any:
        def once() -> Any:
            try:
                reach(call, key)
                answer = request()
                self._answered = True
                return answer
            except self._faults as error:
                if _status(error) == 404 and _code(error) != "NoSuchBucket":
                    self._answered = True
                    raise NotThere(key) from None
                self._refuse_if_final(error)
                raise _Doubtful(str(error)) from None

        return self._settle(key, once)

    def _settle(self, key: str, once: Callable[[], Any]) -> Any:
        try:
            for attempt in stamina.retry_context(on=_Doubtful, attempts=None, timeout=PATIENCE_S, wait_initial=0.05, wait_max=10.0, wait_jitter=0.5):
                with attempt:
                    return once()
        except _Doubtful as error:
            raise Stopped(f"{self.uri}/{key}: {error}; when the store is back, run the same command again") from None
        raise AssertionError("unreachable")

    def _refuse_if_final(self, error: Exception) -> None:
        """Raise what no further try will mend; where the store has answered before, as a stop in the middle of the work."""
        code, text = _code(error), ""
        if code == "NoSuchBucket":
            text = "there is no such bucket; create it first"
        elif code in _NO_ACCESS or _status(error) in (401, 403):
            text = f"access is refused ({code}); check the AWS credentials and the bucket's policy"
        elif code in _NO_USE or _status(error) == 501:
            text = f"the server cannot do what a store needs ({code}); check the bucket's name and region, or use another store"
        elif type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError", "ParamValidationError"):
            text = str(error)
        if text:
            raise (Stopped(f"{self.uri}: {text}, then run the same command again") if self._answered else Unusable(f"{self.uri}: {text}")) from None


def _status(error: Any) -> int:
    return int(_response(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: Any) -> str:
    return str(_response(error).get("Error", {}).get("Code", ""))


def _response(error: Any) -> dict[str, Any]:
    # a connection that was reset has an error whose response is None
    return getattr(error, "response", None) or {}
