"""A store in a bucket of S3, or of a server that speaks its protocol."""

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import IO, Any
from urllib.parse import urlsplit

import stamina

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import Stopped, Unusable
from beam_ray.failpoint import reach
from beam_ray.store.objects import NotThere

PATIENCE_S = 600.0
"""Seconds for which a store that answers with faults is asked again."""

CONNECT_S = 5.0

READ_S = 60.0
"""Seconds without a byte after which a server's answer is given up, and asked for again."""

PIECE = 4_000_000
"""Bytes of an object that is copied to a file at a time."""

AT_ONCE = 32
"""Requests of a process at once."""

DELETED_TOGETHER = 1_000
"""Objects that one request deletes at most, by S3's protocol."""

_NO_ACCESS = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed")
"""What S3 says with status 400 to credentials that will not do; other words come with 401 or 403."""

_NO_USE = ("InvalidBucketName", "PermanentRedirect", "NotImplemented", "MethodNotAllowed")
"""What asking again does not change."""


_CLIENTS: dict[tuple[tuple[str, str], ...] | None, Any] = {}
"""By the environment that they were made from."""


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
        self._deletes_together = True
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
            max_pool_connections=AT_ONCE,
            s3={"addressing_style": "path" if custom else "auto"},
        )
        try:
            # runners of one process, for one run after the other, share a client: to make one takes 75 ms of CPU time
            known = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_"))) if proven else None
            self._client = _CLIENTS.get(known) or boto3.session.Session().client("s3", config=config)
            if known is not None:
                _CLIENTS[known] = self._client
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

    def read_range(self, key: str, start: int, size: int) -> bytes:
        wanted = f"bytes={start}-{start + size - 1}" if start >= 0 else f"bytes={start}"

        def get() -> bytes:
            found = self._client.get_object(Bucket=self.bucket, Key=self._key(key), Range=wanted)
            body = bytes(found["Body"].read())
            # some servers answer with all of it
            return body if found["ResponseMetadata"]["HTTPStatusCode"] == 206 else body[start if start >= 0 else max(len(body) + start, 0) :]

        return bytes(self._ask("read", key, get))[:size]

    def download(self, key: str, file: IO[bytes]) -> None:
        """Write what is under *key* to *file*, a piece at a time; raises NotThere."""

        def get() -> None:
            file.seek(0)
            file.truncate()
            for piece in self._client.get_object(Bucket=self.bucket, Key=self._key(key))["Body"].iter_chunks(PIECE):
                try:
                    file.write(piece)
                except OSError as error:
                    raise Unusable(f"{self.uri}/{key} cannot be copied to this machine ({error.strerror or error})") from None

        self._ask("read", key, get)

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

    def delete_all(self, keys: Iterable[str]) -> None:
        left = list(keys)
        while len(left) > 1 and self._deletes_together:
            now, left = left[:DELETED_TOGETHER], left[DELETED_TOGETHER:]
            left = [*self._delete_together(now), *left]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(self.delete, left))

    def _delete_together(self, keys: list[str]) -> list[str]:
        """Delete the keys by one request; those that the server did not delete, after which it is asked for each by itself."""

        def take() -> list[str]:
            for key in keys[1:]:
                reach("delete", key)
            try:
                answer = self._client.delete_objects(Bucket=self.bucket, Delete={"Objects": [{"Key": self._key(key)} for key in keys], "Quiet": True})
            except self._faults as error:
                if not 400 <= _status(error) < 500 and _status(error) != 501:
                    raise
                answer = {"Errors": [{"Key": self._key(key)} for key in keys]}  # not every server has this request
            refused = {entry["Key"] for entry in answer.get("Errors", ())}
            self._deletes_together = self._deletes_together and not refused
            for key in keys:
                if self._key(key) not in refused:
                    reach("deleted", key)
            return [key for key in keys if self._key(key) in refused]

        return list(self._ask("delete", keys[0], take))

    def age(self, key: str) -> float:
        head = self._ask("read", key, lambda: self._client.head_object(Bucket=self.bucket, Key=self._key(key)))
        # both times are the server's: a clock of ours that is wrong must not make anything old
        told = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return float((told - head["LastModified"]).total_seconds())

    def strays(self) -> Iterator[tuple[str, int]]:
        yield from ()

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[JsonObject]:
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


def _response(error: Any) -> JsonObject:
    # a connection that was reset has an error whose response is None
    return getattr(error, "response", None) or {}
