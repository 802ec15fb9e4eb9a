"""
Prices of models: from the models file, else from the genai-prices package, else unknown.

genai-prices contains the published prices of many providers and needs no network. A model is looked
up at the provider of its address only, so that a model served by its user never gets the price of a
provider that offers a model of the same name.
"""

import functools
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from beam_ray.llm.settings import ModelSettings, TierPrice

HALF = ("flex", "batch")
"""Tiers that cost half the standard price unless the models file says otherwise."""

STANDARD = ("", "default", "standard", "auto", "on_demand")
"""What endpoints call the standard tier."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of one call."""

    input: int
    """All input tokens, cached ones included."""
    output: int
    """All output tokens, reasoning included."""
    cached: int = 0
    """Input tokens read from the provider's cache."""
    cache_write: int = 0
    """Input tokens written to the provider's cache."""


class Pricing(Protocol):
    """What calls of a model cost."""

    @property
    def source(self) -> str:
        """Where the price comes from, for plans and reports."""

    def cost(self, tokens: Tokens, tier: str = "") -> float | None:
        """US dollars of one call in the service *tier* that the endpoint reported; None where that price is unknown."""


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float = 0.0
    output: float = 0.0
    cached_input: float | None = None
    """Default: the price of input."""
    cache_write: float | None = None
    """Default: the price of input."""
    source: str = "the model object"

    def cost(self, tokens: Tokens, tier: str = "") -> float | None:
        """US dollars of one call, whatever its tier."""
        plain = tokens.input - tokens.cached - tokens.cache_write
        cached = self.input if self.cached_input is None else self.cached_input
        written = self.input if self.cache_write is None else self.cache_write
        return (plain * self.input + tokens.cached * cached + tokens.cache_write * written + tokens.output * self.output) / 1_000_000

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """US dollars of one call without cached tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


@dataclass(frozen=True)
class FilePrice:
    """The price of a models file, with its tiers."""

    standard: Price
    tiers: tuple[tuple[str, Price], ...] = ()
    source: str = "models file"

    def cost(self, tokens: Tokens, tier: str = "") -> float | None:
        """US dollars of one call; flex and batch cost half unless the file prices them, and other tiers are unknown."""
        named = dict(self.tiers)
        if tier in named:
            return named[tier].cost(tokens)
        usd = self.standard.cost(tokens)
        if usd is None or tier in STANDARD:
            return usd
        return usd / 2 if tier in HALF else None


@dataclass(frozen=True)
class ListedPrice:
    """The price that genai-prices lists for a model at an address."""

    model: str
    url: str
    source: str

    def cost(self, tokens: Tokens, tier: str = "") -> float | None:
        """US dollars of one call at the price of today; a batch costs half where no price of batches is listed."""
        usd = _listed(self.model, self.url, tokens, "default" if tier in STANDARD else tier)
        if tier == "batch" and usd is not None and usd == _listed(self.model, self.url, tokens, "default"):
            return usd / 2
        return usd


def price_of(settings: "ModelSettings") -> Pricing | None:
    """The price of a model of the models file, or None where it is unknown."""
    written = settings.usd_per_million
    if written is None:
        source = _listing(settings.model, settings.url_or_written)
        return ListedPrice(settings.model, settings.url_or_written, source) if source else None
    tiers = {name: tier for name in ("flex", "priority", "batch") if (tier := getattr(written, name)) is not None}
    return FilePrice(_price(written), tuple((name, _price(tier)) for name, tier in tiers.items()))


def _price(written: "TierPrice") -> Price:
    return Price(written.input, written.output, written.cached_input, written.cache_write, "models file")


@functools.lru_cache(maxsize=256)
def _listing(model: str, url: str) -> str:
    """What to call the price in genai-prices, or an empty string where it lists none."""
    if _has_no_name(url):
        return ""
    from importlib.metadata import version

    import genai_prices  # it takes 0.2 s and 10 MB, which a run with prices in the file saves

    try:
        found = genai_prices.calc_price(genai_prices.Usage(input_tokens=1, output_tokens=1), model, provider_api_url=url)
    except (LookupError, ValueError):
        return ""
    return f"genai-prices {version('genai-prices')} ({found.provider.id} {found.model.id})"


def _has_no_name(url: str) -> bool:
    """Whether the address is this machine's or in numbers: providers are listed by the names of their hosts."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _listed(model: str, url: str, tokens: Tokens, tier: str) -> float | None:
    import genai_prices

    used = genai_prices.Usage(input_tokens=tokens.input, cache_read_tokens=tokens.cached, cache_write_tokens=tokens.cache_write, output_tokens=tokens.output)
    try:
        return float(genai_prices.calc_price(used, model, provider_api_url=url, price_context={"service_tier": tier}).total_price)
    except (LookupError, ValueError):
        return None
