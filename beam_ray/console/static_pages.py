"""
Pages of the console as plain files, which a browser opens without a server.

They are made by the pages' own functions and templates. What needs a server is taken out of the markup:
scripts, forms and buttons. A link to a page that is a file too becomes a relative one, any other its text.
The same store gives the same files, byte by byte.
"""

import html
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from html.parser import HTMLParser
from urllib.parse import urlsplit

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
POLICY = "default-src 'none'; style-src 'self' file:; img-src 'self' file:; base-uri 'none'; form-action 'none'"
"""What a page loads, wherever the folder is put: its style and its icon, and no script, frame, form or address elsewhere; a disk is not 'self' to all browsers."""
DROPPED = {"script", "dialog", "button", "datalist", "input", "select", "textarea"}
"""Elements that do nothing without a server or a script, with all that is in them; so do forms, but for those that only hold a table."""


def file_name(address: str) -> str:
    """The file of a page: readable, the same each time, and no other page's."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", address).strip("-")
    return f"{words[:70].rstrip('-')}-{sha256(address.encode()).hexdigest()[:8]}.html"


class Links(HTMLParser):
    """The addresses of the console that a page leads to, in order."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href") or ""
        if tag == "a" and href.startswith("/"):
            self.found.append(without_fragment(href))


def without_fragment(address: str) -> str:
    """The address of the page itself."""
    return urlsplit(address)._replace(fragment="").geturl()


@dataclass(frozen=True)
class Place:
    """Where a page is written, and what the others are."""

    here: str
    """Its file, from the top folder."""
    file_of: Callable[[str], str | None]
    """A page's address to its file, from the top folder; None where it has none."""
    note: str
    """Said at the bottom of each page."""

    def relative(self, target: str) -> str:
        """The link from this page to a file."""
        return posixpath.relpath(target, posixpath.dirname(self.here) or ".")


class Offline(HTMLParser):
    """A page rewritten for a place without a server."""

    def __init__(self, text: str, place: Place):
        super().__init__(convert_charrefs=False)
        self._place = place
        self._parts: list[str] = []
        self._dropping: list[str] = []
        self._ends: list[str] = []
        """Of each link that is open, what ends it."""
        self._drawing = 0
        self.feed(text)
        self.close()

    @property
    def text(self) -> str:
        """The rewritten page."""
        return "".join(self._parts)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self._drawing += tag == "svg"
        if self._dropping or self._needs_server(tag, values):
            self._dropping += [tag] * (tag not in VOID)
        elif (tag == "link" and values.get("rel") == "alternate") or (tag == "meta" and values.get("name") == "htmx-config"):
            pass
        elif tag == "a":
            self._link(values)
        else:
            self._write(tag, {name: self._static(name, value) for name, value in values.items() if not name.startswith(("hx-", "data-"))})
            if tag == "meta" and "charset" in values:
                self._write("meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})

    def handle_endtag(self, tag: str) -> None:
        self._drawing -= tag == "svg"
        if self._dropping:
            while self._dropping and self._dropping.pop() != tag:
                pass  # elements whose end may be left out
        elif tag == "a" and self._ends:
            self._parts.append(self._ends.pop())
        else:
            self._parts.append(self._foot() if tag == "footer" else "")
            self._parts.append(f"</{tag}>")

    def _foot(self) -> str:
        return f'<p class="exported">{html.escape(self._place.note)}</p>'

    def _needs_server(self, tag: str, values: Mapping[str, str | None]) -> bool:
        if tag in DROPPED or "data-served" in values:
            return True
        if tag == "form":
            return "data-holds" not in values
        # a link that stands for an action is left out, any other becomes its text
        return tag == "a" and "button" in (values.get("class") or "").split() and self._target(values.get("href") or "") is None

    def _target(self, href: str) -> str | None:
        """Where a link leads; None where that is no file."""
        if href.startswith("#"):
            return href
        if not href.startswith("/"):
            return None
        file = self._place.file_of(without_fragment(href))
        if file is None:
            return None
        fragment = urlsplit(href).fragment
        file = file.partition("#")[0] + f"#{fragment}" if fragment else file
        if file.partition("#")[0] == self._place.here:
            return file[len(self._place.here) :] or self._place.relative(file)
        return self._place.relative(file)

    def _link(self, values: dict[str, str | None]) -> None:
        target = self._target(values.get("href") or "")
        kept = {name: value for name, value in values.items() if name in ("class", "title", "aria-current", "aria-label", "rel", "id")}
        if target is None:
            text = "g" if self._drawing else "span"
            self._write(text, {name: value for name, value in kept.items() if name in ("class", "title", "id")})
            self._ends.append(f"</{text}>")
        else:
            self._write("a", {**kept, "href": target})
            self._ends.append("</a>")

    def _static(self, name: str, value: str | None) -> str | None:
        if name in ("href", "src") and value and value.startswith("/static/"):
            return self._place.relative(value[1:])
        return value

    def _write(self, tag: str, values: Mapping[str, str | None]) -> None:
        written = "".join(f" {name}" if value is None else f' {name}="{html.escape(value)}"' for name, value in values.items())
        self._parts.append(f"<{tag}{written}>")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_data(self, data: str) -> None:
        self._parts.append("" if self._dropping else data)

    def handle_entityref(self, name: str) -> None:
        self.handle_data(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.handle_data(f"&#{name};")

    def handle_decl(self, decl: str) -> None:
        self.handle_data(f"<!{decl}>")
