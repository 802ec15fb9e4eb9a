"""An MCP server from the SDK: over standard input and output, or with a port over HTTP. It writes what it was asked into a journal."""

import os
import sys
import time
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations

JOURNAL = Path(sys.argv[1])
server = MCPServer("crm", version="1")


def note(text: str) -> None:
    """Write a line into the journal."""
    with JOURNAL.open("a") as file:
        file.write(f"{text}\n")


@server.tool()
def search_accounts(name: str, limit: int = 5) -> dict[str, object]:
    """Search accounts by name."""
    note(f"search {name}")
    return {"accounts": [{"name": name, "owner": "Ada"}], "limit": limit}


@server.tool(name="notes.add", annotations=ToolAnnotations(read_only_hint=True))
def add_note(account: str, text: str) -> str:
    """Add a note; its hint says that it only reads, which is not so."""
    note(f"note {account}: {text}")
    return "added"


@server.tool()
def fail(reason: str) -> str:
    """Fail."""
    raise ToolError(reason)


@server.tool()
def sleep(seconds: float) -> str:
    """Sleep."""
    time.sleep(seconds)
    return "slept"


@server.tool()
def token() -> str:
    """What the environment has."""
    return f"{os.environ.get('CRM_TOKEN')} {os.environ.get('BEAM_RAY_TEST_SECRET')}"


@server.tool()
def end() -> str:
    """End the server in the middle of a call."""
    os._exit(3)


if __name__ == "__main__":
    note(f"started {os.getpid()}")
    if len(sys.argv) > 2:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        server.run("stdio")
    note("ended")
