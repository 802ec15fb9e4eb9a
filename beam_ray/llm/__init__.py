"""
HOW a model is asked: a real endpoint, a scripted one, and what a call costs.

Both kinds of model answer the same ``Request`` with the same ``Answer``; nothing above
this folder knows which it talks to.
"""

from beam_ray.llm.request import Answer, Request
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.usage import Usage

__all__ = ["Answer", "Request", "ScriptedModel", "Usage"]
