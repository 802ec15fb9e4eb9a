"""
The console: what is in a store as pages, and the commands that change it as buttons.

A page reads values by the public functions of ``beam_ray`` and renders them; it has no rule, statistic or
path of its own. A button starts the command that its page names, in a process of its own, so that nothing
is lost with the console, and another console or the command line sees the same run. Every page is also
there as JSON and as Markdown: the same address with ``.json`` or ``.md`` behind it.

Not a single-page application: the readers of tables, diffs and timelines want links, search in the page,
reload and print, which a browser does by itself with pages, and nobody here builds JavaScript.
"""

from beam_ray.console.export import Exported, export
from beam_ray.console.options import ConsoleOptions
from beam_ray.console.server import create_app, serve

__all__ = ["ConsoleOptions", "Exported", "create_app", "export", "serve"]
