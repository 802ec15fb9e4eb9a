"""A store that remembers what is asked of it."""

from collections import Counter
from collections.abc import Iterator

from beam_ray.errors import Stopped
from beam_ray.store.objects import Objects


class Counted:
    """Objects with a count of requests."""

    def __init__(self, objects: Objects):
        self.objects, self.uri = objects, objects.uri
        self.asked: Counter[str] = Counter()
        """Kind of request to how many there were."""
        self.read_keys: list[str] = []
        self.writable = True

    def _write(self, kind: str) -> None:
        self.asked[kind] += 1
        if not self.writable:
            raise Stopped("the store cannot be written")

    def create(self, key: str, body: bytes) -> bool:
        self._write("create")
        return self.objects.create(key, body)

    def put(self, key: str, body: bytes) -> None:
        self._write("put")
        self.objects.put(key, body)

    def read(self, key: str) -> bytes:
        self.asked["read"] += 1
        self.read_keys.append(key)
        return self.objects.read(key)

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        self.asked["list"] += 1
        return self.objects.keys(prefix)

    def folders(self, prefix: str) -> list[str]:
        self.asked["list"] += 1
        return self.objects.folders(prefix)

    def delete(self, key: str) -> None:
        self._write("delete")
        self.objects.delete(key)

    def age(self, key: str) -> float:
        self.asked["head"] += 1
        return self.objects.age(key)

    def strays(self) -> Iterator[tuple[str, int]]:
        return self.objects.strays()
