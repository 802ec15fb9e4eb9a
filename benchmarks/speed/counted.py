"""A store that counts what is asked of it, as S3 would be asked."""

from collections import Counter
from collections.abc import Iterator

from beam_ray.errors import Stopped
from beam_ray.store.objects import Objects

PAGE = 1_000
"""Keys that one LIST request names."""


class Counted:
    """Objects with a count of requests."""

    def __init__(self, objects: Objects):
        self.objects, self.uri = objects, objects.uri
        self.asked: Counter[str] = Counter()
        """Kind of request to how many there were."""
        self.read_keys: list[str] = []
        self.writable = True

    def requests(self) -> int:
        """All requests since they were counted last."""
        found = self.asked.total()
        self.asked.clear()
        return found

    def create(self, key: str, body: bytes) -> bool:
        """See Objects."""
        self._write("create")
        return self.objects.create(key, body)

    def put(self, key: str, body: bytes) -> None:
        """See Objects."""
        self._write("put")
        self.objects.put(key, body)

    def read(self, key: str) -> bytes:
        """See Objects."""
        self.asked["read"] += 1
        self.read_keys.append(key)
        return self.objects.read(key)

    def read_range(self, key: str, start: int, size: int) -> bytes:
        """See Objects."""
        self.asked["read"] += 1
        self.read_keys.append(key)
        return self.objects.read_range(key, start, size)

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """See Objects."""
        found = list(self.objects.keys(prefix))
        self.asked["list"] += max(-(-len(found) // PAGE), 1)
        return iter(found)

    def folders(self, prefix: str) -> list[str]:
        """See Objects."""
        found = self.objects.folders(prefix)
        self.asked["list"] += max(-(-len(found) // PAGE), 1)
        return found

    def delete(self, key: str) -> None:
        """See Objects."""
        self._write("delete")
        self.objects.delete(key)

    def age(self, key: str) -> float:
        """See Objects."""
        self.asked["head"] += 1
        return self.objects.age(key)

    def strays(self) -> Iterator[tuple[str, int]]:
        """See Objects."""
        return self.objects.strays()

    def _write(self, kind: str) -> None:
        self.asked[kind] += 1
        if not self.writable:
            raise Stopped("the store cannot be written")
