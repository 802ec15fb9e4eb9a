"""
Whether this process is there for one command alone, and ends with it.

Such a process waits for nothing that the system ends with it: for a local Ray, and for a Ray
cluster to take note that it has gone, both of which take up to half a second.
"""

import threading

ENDS_WITH_COMMAND = threading.Event()
"""Set by the command line, which does not wait for daemon threads at its end."""
