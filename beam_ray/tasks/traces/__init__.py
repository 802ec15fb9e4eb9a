"""
Production traces as tasks: what was asked, what came out, and what people said of it.

One module per format turns a file's documents into ``Trace`` values; ``read_traces`` chooses by
the word before the colon. A trace that cannot be read is a problem with its file and line, and
all problems of a file are reported at once.
"""

from beam_ray.tasks.traces.read import FORMATS, TraceFile, read_traces
from beam_ray.tasks.traces.trace import Feedback, Trace

__all__ = ["FORMATS", "Feedback", "Trace", "TraceFile", "read_traces"]
