"""
Models: OpenAI-compatible endpoints, scripted models, and what calls cost.

Every kind of model answers a ``Request`` with an ``Answer``; nothing above this package knows
which kind it calls.
"""

from beam_ray.llm.request import Answer, Request
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.usage import Usage

__all__ = ["Answer", "Request", "ScriptedModel", "Usage"]
