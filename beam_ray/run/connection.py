"""A cluster connection that opens when it is first needed."""

from beam_ray.run.cluster import Cluster


class Connection:
    """
    A connection to a Ray cluster, opened when it is first needed and kept until it is closed.

    A *cluster* that is given stays open when the connection is closed.
    """

    def __init__(self, address: str | None = None, cluster: Cluster | None = None):
        self.address, self.cluster, self._given = address, cluster, cluster is not None
        self.users = 0
        """Pools of runners that are up."""

    def open(self) -> Cluster:
        """
        The cluster.

        Raises:
            Unusable: there is none at the address, or it requires no token.
        """
        self.cluster = self.cluster or Cluster(self.address)
        return self.cluster

    def rest(self) -> None:
        """Hold no process while nobody has runners; the cluster is opened again when it is needed."""
        if self.users == 0 and self.cluster is not None:
            if self._given:
                self.cluster.release_idle()
            else:
                self.close()

    def close(self) -> None:
        """Disconnect from the cluster; a local one ends."""
        if self.cluster is not None and not self._given:
            self.cluster.close()
            self.cluster = None
