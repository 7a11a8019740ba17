"""Models of the demo with list prices, and the cost of a call the way Langfuse stores it."""

from dataclasses import dataclass
from decimal import Decimal
from hashlib import sha256
from random import Random

_MILLION = Decimal(1_000_000)
PRICING_TIER = ("standard-tier", "Standard")


@dataclass(frozen=True, slots=True)
class Model:
    """A model with its price in US dollars per million tokens of each kind."""

    name: str
    prices: tuple[tuple[str, Decimal], ...]
    temperature: float | None = 0.2

    @property
    def id(self) -> str:
        """A stable identifier, standing in for the row in Langfuse's own model table."""
        return "c" + sha256(self.name.encode()).hexdigest()[:24]

    def cost(self, usage: dict[str, int]) -> dict[str, Decimal]:
        """US dollars per kind of token and in total, exact to 12 decimals."""
        parts = {kind: price * usage[kind] / _MILLION for kind, price in self.prices if usage.get(kind)}
        return {**parts, "total": sum(parts.values(), Decimal(0))} if parts else {}

    def usage(self, rng: Random, input_tokens: int, output_tokens: int) -> dict[str, int]:
        """Tokens per kind and in total; a part of the input comes from the model's prompt cache."""
        kinds = dict(self.prices)
        usage = {"input": input_tokens, "output": output_tokens}
        for kind, likelihood in _INPUT_SHARES.items():
            if kind in kinds and rng.random() < likelihood:
                share = int(usage["input"] * rng.uniform(0.2, 0.8))
                usage = {**usage, "input": usage["input"] - share, kind: share}
        if "output_reasoning_tokens" in kinds:
            thinking = int(output_tokens * rng.uniform(0.5, 3.0))
            usage["output_reasoning_tokens"] = thinking
        usage = {kind: count for kind, count in usage.items() if kind in kinds}
        return {**usage, "total": sum(usage.values())}


_INPUT_SHARES = {
    "input_cached_tokens": 0.6,
    "cache_read_input_tokens": 0.7,
    "cache_creation_input_tokens": 0.3,
}


def _model(name: str, temperature: float | None = 0.2, **prices: str) -> Model:
    return Model(name, tuple((kind, Decimal(price)) for kind, price in prices.items()), temperature)


GPT_MINI = _model("gpt-4.1-mini-2025-04-14", input="0.40", input_cached_tokens="0.10", output="1.60")
GPT_LARGE = _model("gpt-4o-2024-11-20", input="2.50", input_cached_tokens="1.25", output="10.00")
GPT_REASONING = _model(
    "gpt-5-mini-2025-08-07",
    temperature=None,
    input="0.25",
    input_cached_tokens="0.025",
    output="2.00",
    output_reasoning_tokens="2.00",
)
CLAUDE_SONNET = _model(
    "claude-sonnet-4-5-20250929",
    input="3.00",
    cache_read_input_tokens="0.30",
    cache_creation_input_tokens="3.75",
    output="15.00",
)
CLAUDE_HAIKU = _model(
    "claude-haiku-4-5-20251001",
    input="1.00",
    cache_read_input_tokens="0.10",
    cache_creation_input_tokens="1.25",
    output="5.00",
)
GEMINI_FLASH = _model("gemini-2.5-flash", input="0.30", input_cached_tokens="0.03", output="2.50")
EMBEDDING = _model("text-embedding-3-small", temperature=None, input="0.02")
