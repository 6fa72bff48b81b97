"""The section `[prices]`: what models cost, where the price list does not say it."""

from typing import Self

from pydantic import Field, model_validator

from .values import Price, Section


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

    @model_validator(mode="after")
    def _check_both_or_none(self) -> Self:
        if (self.input is None) != (self.output is None):
            raise ValueError("give both prices.input and prices.output, or neither")
        if self.cached_input is not None and self.input is None:
            raise ValueError("prices.cached_input is given, but not prices.input and prices.output")
        return self


class Prices(ModelPrices):
    """Prices that count instead of those of the price list, in US dollars per million tokens."""

    models: dict[str, ModelPrices] = Field(
        default={}, description='the prices of single models, with the same keys: `[prices.models."gpt-x"]`'
    )

    def of(self, model: str) -> ModelPrices:
        """The prices that the job file gives for a model; they are None where it gives none."""
        return self.models.get(model, self)
