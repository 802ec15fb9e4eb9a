"""A local Ray that stays up between commands."""

from dataclasses import dataclass

from beam_ray.api.display import Display, Displayed

DEFAULT_KEEP = "10m"


@dataclass(frozen=True, repr=False)
class LocalRay(Displayed):
    """A local Ray that stays up until no command has used it for a while."""

    address: str
    """HOST:PORT of its head."""
    keep_s: float
    """Seconds without a command after which it ends."""

    def display(self) -> Display:
        return Display(self.address, (("ends after", f"{self.keep_s:g} s without a command"),))


def start_local_ray(keep: str = DEFAULT_KEEP) -> LocalRay:
    """
    Start a local Ray that following commands use, so that they need not start one; one that is up is left as it is.

    It belongs to this user, requires a token, and ends by itself.

    Args:
        keep: How long it stays up without a command, such as ``30s``, ``10m`` or ``2h``.

    Raises:
        Unusable: *keep* is no duration, Ray does not start, or one of another installation is up.
    """
    from beam_ray.errors import Unusable
    from beam_ray.run.kept_ray import seconds_of, start

    seconds = seconds_of(keep)
    if not seconds:
        raise Unusable("a local Ray that is kept for no time is none\n  write a duration such as 10m")
    document = start(seconds)
    return LocalRay(document["address"], document["keep_s"])


def stop_local_ray() -> bool:
    """End the local Ray that stays up; False where there is none. Commands that use it stop, and can be resumed."""
    from beam_ray.run.kept_ray import stop

    return stop()
