"""What the rest of a run costs, as an interval, from a small sample of it. Pure: numbers in, numbers out.

The sample is ``n`` of ``n + M`` texts drawn without replacement; what is told is the sum over the ``M`` others. A
record's cost has two parts that behave differently:

- **the first answer** grows with the text, and the lengths of all ``M`` texts are known. So it is a regression on the
  length: with the mean length ``d`` away from the sample's, the sum's error has the variance
  ``M^2 s^2 (1/n + d^2/Sxx + 1/M)`` and a t distribution with ``n - 2`` degrees of freedom (Draper & Smith, *Applied
  Regression Analysis*, 3rd ed., 1998, section 3.1; without lengths that differ it is the mean's, Cochran, *Sampling
  Techniques*, 3rd ed., 1977, sections 2.5 to 2.8, where ``s^2/n + s^2/M`` is the variance of a sample's mean against
  the mean of what was not drawn).
- **what came after it** (corrections, answers cut off, second looks) is nothing for most records and much for a few, so
  that twenty may hold none. Their number among the ``M`` is beta-binomial with Jeffreys' prior, Beta(k + 1/2, n - k + 1/2)
  (Brown, Cai & DasGupta, "Interval Estimation for a Binomial Proportion", *Statistical Science* 16, 2001); their mean
  size, against that of a first answer to a text as long, is drawn by the Bayesian bootstrap (Rubin, *Annals of
  Statistics* 9, 1981) from those that were seen, and from one more of the size of a first answer where fewer than
  three were.

Both are drawn ``_DRAWS`` times with a fixed seed and added; the interval is between two quantiles of the sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from schemas.usage import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LEVEL = 0.9
"""The share of runs whose rest falls into the interval; a twentieth is above it, and a twentieth below."""
_DRAWS = 4_000
_FEW = 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One sampled text: its characters, what its first answer took, a second one that every text is asked for included, and
    what all further ones took, with the seconds that their calls lasted."""

    fingerprint: str
    characters: int
    first: Usage
    first_seconds: float
    further: Usage
    further_seconds: float


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``, with the middle of what was drawn between."""

    low: float
    middle: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """JSON values with six decimals."""
        return {"low": round(self.low, 6), "middle": round(self.middle, 6), "high": round(self.high, 6)}


@dataclass(frozen=True, slots=True)
class Pace:
    """What bounds the speed: calls in flight, and requests and tokens a minute (None: not bounded)."""

    concurrency: int
    rpm: int | None = None
    tpm: int | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What ``texts`` more texts of a recipe (``name``, ``recipe``) take, ``LEVEL`` of the time. ``cost`` is None where the price is unknown, ``seconds``
    where nothing is known of the time (a batch). ``sampled`` texts were measured for ``spent``; ``further`` of them
    took more than one answer, and ``failed`` records of it failed."""

    texts: int
    sampled: int
    further: int
    failed: int
    spent: Decimal | None
    cost: Interval | None
    input_tokens: Interval
    output_tokens: Interval
    seconds: Interval | None
    currency: str
    name: str = ""
    recipe: str = ""

    @property
    def most(self) -> Decimal | None:
        """The upper end of the cost, the sample included: what is compared with ``approve_above``."""
        if self.cost is None or self.spent is None:
            return None
        return self.spent + Decimal(repr(round(self.cost.high, 10)))

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "texts": self.texts,
            "sampled": self.sampled,
            "further_answers": self.further,
            "failed": self.failed,
            "level": LEVEL,
            "spent": None if self.spent is None else format(self.spent, "f"),
            "cost": self.cost.as_dict() if self.cost else None,
            "currency": self.currency,
            "input_tokens": self.input_tokens.as_dict(),
            "output_tokens": self.output_tokens.as_dict(),
            "seconds": self.seconds.as_dict() if self.seconds else None,
        }

    def lines(self) -> list[str]:
        """The forecast for people."""
        money = "price unknown"
        if self.cost is not None:
            money = f"{_between(self.cost, _money)} {self.currency}"
        lasting = (
            "as long as the batches take"
            if self.seconds is None
            else f"{_between(self.seconds, duration)} unless slowed down"
        )
        spent = "" if self.spent is None else f" for {self.spent:.6f} {self.currency}"
        return [
            f"sample: {self.sampled:,} texts measured{spent}; {self.further:,} took more than one answer, "
            f"{self.failed:,} failed",
            f"the other {self.texts:,} ({LEVEL:.0%} interval, corrections included): {money}; {lasting}",
            f"{_between(self.input_tokens, _count)} input and {_between(self.output_tokens, _count)} output tokens",
        ]


def forecast(
    sample: Sequence[Measured],
    *,
    texts: int,
    characters: int,
    pace: Pace | None,
    currency: str,
    cost_known: bool = True,
    failed: int = 0,
) -> Forecast:
    """Tell what ``texts`` more texts of ``characters`` in all take. ``sample`` must not be empty.

    ``pace`` turns the calls' seconds into time: they are shared by as many calls as may be in flight, and it takes no
    less than the limits allow. None: no time is told."""
    length = characters / texts if texts else 0.0
    known = cost_known and all(one.first.cost is not None and one.further.cost is not None for one in sample)

    def draws(of: Callable[[Usage], float]) -> NDArray[np.float64]:
        return _sums(sample, [of(one.first) for one in sample], [of(one.further) for one in sample], texts, length)

    inputs = draws(lambda usage: usage.input_tokens)
    outputs = draws(lambda usage: usage.output_tokens)
    cost = interval(draws(lambda usage: float(usage.cost or 0))) if known else None
    seconds = None
    if pace is not None:
        busy = _sums(
            sample, [one.first_seconds for one in sample], [one.further_seconds for one in sample], texts, length
        )
        seconds = _lasting(busy, draws(lambda usage: usage.calls), inputs + outputs, pace, sample, texts)
    spent = sum((one.first + one.further for one in sample), Usage()).cost if known else None
    return Forecast(
        texts=texts,
        sampled=len(sample),
        further=sum(one.further.calls > 0 for one in sample),
        failed=failed,
        spent=spent,
        cost=cost,
        input_tokens=interval(inputs),
        output_tokens=interval(outputs),
        seconds=seconds,
        currency=currency,
    )


def interval(draws: NDArray[np.float64]) -> Interval:
    """The middle ``LEVEL`` of what was drawn."""
    import numpy as np

    low, middle, high = np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return Interval(float(low), float(middle), float(high))


def duration(seconds: float) -> str:
    """``1.2 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _sums(
    sample: Sequence[Measured], first: Sequence[float], further: Sequence[float], texts: int, length: float
) -> NDArray[np.float64]:
    """Sums over ``texts`` others, drawn."""
    import numpy as np

    rng = np.random.default_rng(0)
    if not texts:
        return np.zeros(_DRAWS)
    lengths = np.array([one.characters for one in sample], dtype=float)
    y = np.array(first, dtype=float)
    fitted, centre, error, freedom = _regressed(lengths, y, texts, length)
    each = np.maximum(0.0, centre + error * rng.standard_t(freedom, _DRAWS))
    more = np.array(further, dtype=float)
    some = more > 0
    share = rng.beta(some.sum() + 0.5, len(sample) - some.sum() + 0.5, _DRAWS)
    number = rng.binomial(texts, share)
    # A correction sends the text again: its size is told against what a first answer to such a text takes.
    sizes = more[some] / fitted[some]
    if len(sizes) < _FEW:
        sizes = np.append(sizes, 1.0)
    weights = rng.dirichlet(np.ones(len(sizes)), _DRAWS)
    mean, square = weights @ sizes, weights @ sizes**2
    uneven = float((fitted**2).mean() / fitted.mean() ** 2) if fitted.mean() else 1.0
    noise = np.sqrt(number * np.maximum(0.0, square * uneven - mean**2)) * rng.standard_normal(_DRAWS)
    return np.asarray(each * (texts + np.maximum(0.0, number * mean + noise)))


def _regressed(
    lengths: NDArray[np.float64], y: NDArray[np.float64], texts: int, length: float
) -> tuple[NDArray[np.float64], float, float, int]:
    """What the line says of each sampled text (a tenth of their mean at least), the mean over the others, its
    standard error, and the degrees of freedom."""
    import numpy as np

    n = len(y)
    around = lengths - lengths.mean()
    spread = float(around @ around)
    if n > 3 and spread > 0:
        slope = float(around @ y) / spread
        residuals = y - y.mean() - slope * around
        variance, freedom = float(residuals @ residuals) / (n - 2), n - 2
        away = length - float(lengths.mean())
        error = (variance * (1 / n + away**2 / spread + 1 / texts)) ** 0.5
        fitted = np.maximum(y.mean() / 10 or 1.0, y.mean() + slope * around)
        return fitted, float(y.mean()) + slope * away, error, freedom
    variance = float(y.var(ddof=1)) if n > 1 else 0.0
    fitted = np.full(n, y.mean() or 1.0)
    return fitted, float(y.mean()), (variance * (1 / n + 1 / texts)) ** 0.5, max(1, n - 1)


def _lasting(
    busy: NDArray[np.float64],
    calls: NDArray[np.float64],
    tokens: NDArray[np.float64],
    pace: Pace,
    sample: Sequence[Measured],
    texts: int,
) -> Interval:
    """Seconds from the first call to the last answer."""
    import numpy as np

    whole = np.array([one.first_seconds + one.further_seconds for one in sample])
    # The last of the calls in flight ends alone: on average half a record's time after the places run empty.
    lasting = busy / max(1, min(pace.concurrency, texts)) + whole.mean() / 2
    for amount, rate in ((calls, pace.rpm), (tokens, pace.tpm)):
        if rate is not None:
            lasting = np.maximum(lasting, amount * 60 / rate)
    return interval(lasting)


def _between(found: Interval, shown: Callable[[float], str]) -> str:
    low, high = shown(found.low), shown(found.high)
    return low if low == high else f"{low} to {high}"


def _money(value: float) -> str:
    return "0" if not value else f"{value:,.2f}" if value >= 10 else f"{value:.4f}" if value >= 0.01 else f"{value:.6f}"


def _count(value: float) -> str:
    return f"{round(value):,}"
