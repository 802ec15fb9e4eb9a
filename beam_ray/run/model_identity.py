"""What identifies a model: for its answers, and for its limits."""

from beam_ray.define.fingerprint import digest
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.limiter import Limits


def endpoint_of(name: str, written: ModelSettings | ScriptedModel) -> str:
    """What shares its rate limits: one model at one address with one key, under however many names."""
    return digest("endpoint/1", written.url, written.model, written.secret) if isinstance(written, ModelSettings) else f"scripted {name}"


def endpoint_name(name: str, written: ModelSettings | ScriptedModel) -> str:
    """The name by which the endpoint knows the model."""
    return written.model if isinstance(written, ModelSettings) else name


def limits_of(written: ModelSettings | ScriptedModel) -> Limits:
    """The limits of a model, real or scripted."""
    return Limits(written.concurrency, written.requests_per_minute, written.tokens_per_minute)


def identity(written: ModelSettings | ScriptedModel) -> str:
    """Digest of what determines a model's answers: which model, and its settings; not its address or price."""
    if isinstance(written, ModelSettings):
        return written.identity
    return digest("model/1", written.identity)
