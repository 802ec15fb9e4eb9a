"""A disk whose writer dies."""

from beam_ray.errors import Stopped
from beam_ray.store.disk import Disk


class Dying(Disk):
    """A disk that stops before its change number ``left``, counted from 0, and at every one after it."""

    left = 0

    def _change(self) -> None:
        if self.left <= 0:
            raise Stopped("killed here")
        self.left -= 1

    def create(self, key: str, body: bytes) -> bool:
        self._change()
        return super().create(key, body)

    def put(self, key: str, body: bytes) -> None:
        self._change()
        super().put(key, body)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)
