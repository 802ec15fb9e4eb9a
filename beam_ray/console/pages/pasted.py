"""What people paste: an address, a task's id, a run, a backtest, or the beginning of one."""

from urllib.parse import unquote

from beam_ray.console.forms import Fields
from beam_ray.console.links import address_path, backtest_path, run_path, with_query
from beam_ray.console.site import Site
from beam_ray.errors import Unusable


def pasted(site: Site, path: str, fields: Fields) -> str:
    """
    The address of the page that shows it.

    Raises:
        Unusable: it names nothing.
    """
    word = unquote(path.removeprefix("/t/")).strip()
    if "/" in word:
        found = site.store.task(word)
        return address_path(found.address, **({"step": found.node} if found.node else {}))
    try:
        return run_path(site.reader.run(word).id)
    except Unusable:
        pass
    matches = [each.id for each in site.reader.backtests() if each.id.startswith(word)]
    if len(matches) == 1:
        return backtest_path(matches[0])
    try:
        return address_path(site.store.task(word).address)
    except Unusable:
        return with_query("/tasks", {"q": word})
