"""Whether an endpoint answers, asked without the client library, which takes longer to load than the answer takes."""

import urllib.request

import httpx2
import stamina

from beam_ray.errors import Unusable
from beam_ray.llm.settings import ModelSettings

TIMEOUT_S = 10.0


def probe(settings: ModelSettings, name: str) -> None:
    """
    List the endpoint's models, which costs nothing.

    Raises:
        Unusable: the endpoint does not answer, or refuses the key.
    """
    url = f"{settings.url.rstrip('/')}/models"
    # the trusted certificates take longer to read than all else here
    verify = url.startswith("https:") or bool(urllib.request.getproxies())
    try:
        for attempt in stamina.retry_context(on=httpx2.TransportError, attempts=2, wait_initial=0.1, wait_max=0.5):
            with attempt:
                reply = httpx2.get(url, headers=headers(settings), params=settings.own_query, timeout=TIMEOUT_S, verify=verify)
    except httpx2.HTTPError as error:
        hint = "\n  beam-ray serve  starts the embedded model" if "127.0.0.1" in settings.url or "localhost" in settings.url else ""
        raise Unusable(f"the model {name!r}: no server answers at {settings.base_url} ({settings.hide(str(error))}){hint}") from None
    # an endpoint that does not list its models may well answer requests
    if reply.status_code in (401, 403):
        raise Unusable(f"the model {name!r}: {settings.base_url} refuses the key ({settings.api_key})")


def headers(settings: ModelSettings) -> dict[str, str]:
    """The headers that identify us: those of the settings, and the key unless they carry it."""
    own = settings.own_headers
    if settings.key_elsewhere or "authorization" in map(str.lower, own):
        return own
    return {"Authorization": f"Bearer {settings.secret}", **own}
