"""A product offer: a shop page, a catalogue line, an advertisement."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from schemas.printed import currency_code, printed_amount


class Availability(StrEnum):
    """Whether the product can be had now."""

    IN_STOCK = "in_stock"
    OUT_OF_STOCK = "out_of_stock"
    UNKNOWN = "unknown"


def _drop_blank(features: Any) -> Any:
    if not isinstance(features, list):
        return features
    return [feature for feature in features if not (isinstance(feature, str) and not feature.strip())]


EXAMPLES: list[JsonValue] = [
    {
        "product_name": "Kestrel 20L Daypack",
        "price": "59.90",
        "currency": "EUR",
        "availability": "in_stock",
        "key_features": ["20 litres", "rain cover", "420 g"],
    },
    {
        "product_name": "Brass desk lamp",
        "price": None,
        "currency": None,
        "availability": "unknown",
        "key_features": [],
    },
    {
        "product_name": "USB-C hub 7-in-1",
        "price": "34.50",
        "currency": "USD",
        "availability": "out_of_stock",
        "key_features": ["HDMI 4K", "100 W pass-through"],
    },
]


class Product(BaseModel):
    """One product that is offered, with its price and the features that are named.

    Extract what the text says about the product itself; leave out delivery, payment and other products.
    """

    model_config = ConfigDict(json_schema_extra={"examples": EXAMPLES})

    product_name: str = Field(
        min_length=1, description="Name of the product as printed, with brand and model, without price or slogans."
    )
    price: Annotated[Decimal | None, BeforeValidator(printed_amount)] = Field(
        default=None,
        max_digits=12,
        decimal_places=2,
        ge=0,
        description="Price of one unit as a plain number such as 1299.00; the current one if an old price is crossed "
        "out; null if no price is printed.",
    )
    currency: Annotated[str | None, BeforeValidator(currency_code)] = Field(
        default=None,
        pattern=r"^[A-Z]{3}$",
        description="ISO 4217 code of the price's currency, three capital letters such as EUR; null if not printed.",
    )
    availability: Availability = Field(
        description="in_stock if it can be bought or shipped now, out_of_stock if it is sold out or not yet to be had, "
        "unknown if the text does not say."
    )
    key_features: Annotated[list[str], BeforeValidator(_drop_blank)] = Field(
        default_factory=list,
        description="Features named in the text, a short phrase each, in the order of the text; empty if none.",
    )
