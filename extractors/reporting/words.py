"""Numbers as people read them."""

from __future__ import annotations

from decimal import Decimal


def count(n: int) -> str:
    """``12,345``."""
    return f"{n:,}"


def percent(part: int, whole: int) -> str:
    """A share; never 100 % of what is not all, or 0 % of what is not none."""
    if not whole:
        return "–"
    share = 100 * part / whole
    if part == whole or part == 0:
        return f"{share:.0f} %"
    if share < 0.1:
        return "< 0.1 %"
    if share > 99.9:
        return "> 99.9 %"
    return f"{share:.1f} %" if share < 10 or share > 90 else f"{share:.0f} %"


def amount(value: float) -> str:
    """A number in as few digits as tell it."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e6 or abs(value) < 1e-3:
        return f"{value:.3g}"
    return f"{value:,.2f}".rstrip("0").rstrip(".") if abs(value) >= 10 else f"{value:.3g}"


def seconds(value: float) -> str:
    """``8 ms``, ``1.25 s``, ``3 min 20 s``, ``1 h 5 min``."""
    if value < 0.9995:
        return (
            f"{value * 1000:.0f} ms" if value >= 0.01 or value * 1000 == int(value * 1000) else f"{value * 1000:.1f} ms"
        )
    if value < 100:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def money(cost: Decimal | None, currency: str) -> str:
    """An amount to four significant digits at least; an unknown price says so."""
    if cost is None:
        return "price unknown"
    if not cost:
        return f"0 {currency}"
    places = max(2, 3 - cost.adjusted())
    return f"{cost:,.{places}f} {currency}"


def size(n: int) -> str:
    """Bytes."""
    return f"{n / 1_000_000:,.1f} MB" if n >= 100_000 else f"{n / 1000:,.1f} kB"
