"""The section `[prices]`: what models cost, where the price list does not say it."""

from typing import Self

from pydantic import Field, model_validator

from .values import Price, Section

LONG = ("long_prompt_tokens", "long_input", "long_output")
"""The settings that make a long prompt dearer; they make sense only together."""


class ModelPrices(Section):
    """The prices of one model, in US dollars per million tokens."""

    input: Price | None = Field(default=None, description="US dollars per million prompt tokens")
    cached_input: Price | None = Field(
        default=None,
        description="US dollars per million prompt tokens that the endpoint read from its cache; default: `input`",
    )
    output: Price | None = Field(
        default=None, description="US dollars per million completion tokens, hidden reasoning included"
    )

    cache_write: Price | None = Field(
        default=None,
        description="US dollars per million prompt tokens that the endpoint wrote to its cache; default: 1.25 times "
        "`input`, which OpenAI and Anthropic charge",
    )
    long_cache_write: Price | None = Field(
        default=None,
        description="the same for a cache that lasts an hour or more; default: 2 times `cache_write`",
    )
    long_prompt_tokens: int | None = Field(
        default=None,
        ge=0,
        description="requests with more prompt tokens than this cost more: `long_input`, `long_output`",
    )
    long_input: Price | None = Field(
        default=None,
        description="US dollars per million prompt tokens of such a request; those of a cache rise in proportion",
    )
    long_output: Price | None = Field(
        default=None, description="US dollars per million completion tokens of such a request"
    )
    tiers: dict[str, Price] = Field(
        default={},
        description="what a service tier costs, as a multiple of these prices; default: "
        "`{ flex = 0.5, priority = 2, fast = 2, ultrafast = 6 }`",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("give both prices.input and prices.output, or neither")
        others = ("cached_input", "cache_write", "long_cache_write", *LONG)
        for name in others if self.input is None else ():
            if getattr(self, name) is not None:
                raise ValueError(f"prices.{name} is given, but not prices.input and prices.output")
        given = [name for name in LONG if getattr(self, name) is not None]
        if given and len(given) < len(LONG):
            missing = next(name for name in LONG if name not in given)
            raise ValueError(f"prices.{given[0]} is given, but not prices.{missing}; give {', '.join(LONG)}, or none")
        return self


class Prices(ModelPrices):
    """Prices that count instead of those of the price list, in US dollars per million tokens."""

    models: dict[str, ModelPrices] = Field(
        default={}, description='the prices of single models, with the same keys: `[prices.models."gpt-x"]`'
    )

    def of(self, model: str) -> ModelPrices:
        """The prices that the job file gives for a model; they are None where it gives none."""
        return self.models.get(model, self)
