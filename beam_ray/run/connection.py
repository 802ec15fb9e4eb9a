"""A cluster connection that opens when it is first needed, or in the background before that."""

import threading
from typing import TYPE_CHECKING

from beam_ray.command_process import ENDS_WITH_COMMAND

if TYPE_CHECKING:
    from beam_ray.run.cluster import Cluster


class Connection:
    """
    A connection to a Ray cluster, opened when it is first needed and kept until it is closed.

    A *cluster* that is given stays open when the connection is closed.
    """

    def __init__(self, address: str | None = None, cluster: "Cluster | None" = None):
        self.address, self.cluster, self._given = address, cluster, cluster is not None
        self._opening: _Opening | None = None
        self.users = 0
        """Pools of runners that are up."""

    def begin(self) -> None:
        """Start opening the connection in the background, so that other preparations need not wait for it; ``open`` raises what goes wrong."""
        if self.cluster is None and self._opening is None:
            _disconnect_closed()
            self._opening = _Opening(self.address)

    def open(self) -> "Cluster":
        """
        The cluster.

        Raises:
            Unusable: there is none at the address, or it requires no token.
        """
        if self.cluster is None:
            self.begin()
            assert self._opening is not None
            try:
                self.cluster = self._opening.cluster.result()
            except Exception:
                self._opening = None
                raise
        return self.cluster

    def rest(self) -> None:
        """Hold no process while nobody has runners; the cluster is opened again when it is needed."""
        if self.users == 0 and self.cluster is not None:
            if self._given:
                self.cluster.release_idle()
            else:
                self.close()
                _disconnect_closed()

    def close(self) -> None:
        """
        Disconnect from the cluster; a local one ends.

        A process that ends with its command stays connected until then, or until it connects again: Ray
        takes up to half a second to disconnect, and ends the process if another thread looks at it meanwhile.
        """
        if self._given or self._opening is None:
            return
        opened, opening = self.cluster, self._opening
        self.cluster = self._opening = None
        if opened is not None:
            opened.close()
        opening.closed.set()
        _closed.append(opening)
        # where something was refused before anybody used it, that is said at once
        if opened is not None and not ENDS_WITH_COMMAND.is_set():
            _disconnect_closed()


class _Opening:
    """A connection that is opened, and ended, in a thread of its own."""

    def __init__(self, address: str | None):
        from concurrent.futures import Future

        self.cluster: Future[Cluster] = Future()
        self.closed, self.leave = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._open, args=(address,), name="connect to Ray", daemon=True)
        self.thread.start()

    def _open(self, address: str | None) -> None:
        with _ONE_AT_A_TIME:
            try:
                from beam_ray.run.cluster import Cluster  # loads Ray

                cluster = Cluster(address)
            except BaseException as error:
                self.cluster.set_exception(error)
                return
            self.cluster.set_result(cluster)
        # the system ends the processes of a local Ray with the thread that started them
        self.closed.wait()
        if ENDS_WITH_COMMAND.is_set():
            self.leave.wait()
        with _ONE_AT_A_TIME:
            cluster.disconnect()


_ONE_AT_A_TIME = threading.Lock()
"""Held while a connection is opened or ends: Ray has one connection per process."""

_closed: list[_Opening] = []
"""Connections that were closed, and may still be there."""


def _disconnect_closed() -> None:
    while _closed:
        opening = _closed.pop()
        opening.leave.set()
        opening.thread.join()
