"""
Whether this process is there for one command alone, and ends with it.

Such a process leaves to the system what ends with it: a local Ray, and its connection to a
Ray cluster. To end them itself would take up to half a second.
"""

import threading

ENDS_WITH_COMMAND = threading.Event()
"""Set by the command line, which does not wait for daemon threads at its end."""
