"""Maps from a confidence score to the share of values that are right at it, fitted on labelled values.

``isotonic``: the least-squares non-decreasing map, by pooling adjacent violators (Ayer et al. 1955; Zadrozny and
Elkan 2002), read between its blocks by straight lines; its shares are smoothed, so that a set without a wrong value does not
become certainty. ``platt``: a logistic curve over the score's log-odds, fitted
with Platt's smoothed targets (Platt 1999; Lin, Lin and Weng 2007). The expected calibration error is that of Guo et
al. 2017: the gap between mean confidence and share right in bins of equal width, weighted by the bins' sizes.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import orjson

from extractors.errors import JobError
from extractors.store import files

Kind = Literal["isotonic", "platt"]
Pair = tuple[float, bool]
"""A score and whether the value was right."""

SCORES = 2
"""How scores are counted that a map is fitted on: raised when the code counts them in another way."""
LEAST_PAIRS = 20
"""Labelled values without which no map is fitted."""
_EDGE = 1e-6
_STEPS = 100


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted map. ``points`` are (score, probability) in ascending order for ``isotonic``, and one (slope, offset)
    for ``platt``; ``pairs`` is how many labelled values it was fitted on. ``nulls`` is the map for nulls, whose
    scores mean something else than those of values; without it they share this one. ``lowest`` is the lowest score that
    it was fitted on, ``model`` and ``schema`` name whose scores they were; None in files from before that was kept.
    ``agreement``: the scores have in them whether two answers agree."""

    kind: Kind
    points: tuple[tuple[float, float], ...]
    pairs: int
    nulls: Calibration | None = None
    lowest: float | None = None
    model: str | None = None
    schema: str | None = None
    agreement: bool = False

    def apply(self, score: float, *, null: bool = False) -> float:
        """The calibrated probability of a score. Below the lowest that was seen nothing is known: it falls to 0 with the
        score."""
        if null and self.nulls is not None:
            return self.nulls.apply(score)
        if self.lowest is not None and score < self.lowest:
            return min(self._mapped(score), self._mapped(self.lowest) * score / self.lowest)
        return self._mapped(score)

    def _mapped(self, score: float) -> float:
        if self.kind == "platt":
            [(slope, offset)] = self.points
            return _sigmoid(slope * _log_odds(score) + offset)
        scores = [point[0] for point in self.points]
        after = bisect_right(scores, score)
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (left, low), (right, high) = self.points[after - 1], self.points[after]
        return low + (high - low) * (score - left) / (right - left)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; ``from_dict`` is the inverse."""
        told: dict[str, Any] = {
            "kind": self.kind,
            "points": [list(point) for point in self.points],
            "pairs": self.pairs,
        }
        for name in ("lowest", "model", "schema"):
            if (value := getattr(self, name)) is not None:
                told[name] = value
        if self.nulls is not None:
            told["nulls"] = self.nulls.as_dict()
        return {**told, "agreement": True} if self.agreement else told

    @classmethod
    def from_dict(cls, data: Any) -> Calibration:
        """Raises ``JobError`` for what is no calibration."""
        try:
            points = tuple((float(one), float(other)) for one, other in data["points"])
            nulls = None if data.get("nulls") is None else cls.from_dict(data["nulls"])
            lowest = None if data.get("lowest") is None else float(data["lowest"])
            model, schema = (None if data.get(name) is None else str(data[name]) for name in ("model", "schema"))
            made = cls(
                data["kind"],
                points,
                int(data["pairs"]),
                nulls,
                lowest,
                model,
                schema,
                bool(data.get("agreement", False)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise JobError(f"this is no calibration ({type(error).__name__}: {error}); fit one anew") from error
        ordered = all(one[0] < other[0] for one, other in pairwise(points))
        if made.kind not in ("isotonic", "platt") or not points or not ordered:
            raise JobError("this is no calibration (its points are not in order); fit one anew")
        if made.kind == "platt" and len(points) != 1:
            raise JobError(
                f"this is no calibration (a platt map is one slope and offset, not {len(points)}); fit one anew"
            )
        if made.kind == "isotonic" and not all(0 <= number <= 1 for point in points for number in point):
            raise JobError("this is no calibration (a point lies outside of 0 to 1); fit one anew")
        if lowest is not None and not 0 <= lowest <= 1:
            raise JobError("this is no calibration (its lowest score lies outside of 0 to 1); fit one anew")
        falls = next((after for before, after in pairwise(points) if after[1] < before[1]), None)
        if made.kind == "isotonic" and falls is not None:
            raise JobError(
                f"this is no calibration (its map falls at score {falls[0]:g}: a higher score must not be worth less); fit "
                "one anew"
            )
        return made

    def save(self, path: Path) -> None:
        """Write it as JSON; the folder is made. Raises ``OutputError``."""
        files.make_folder(path.parent)
        files.write_whole(path, orjson.dumps({**self.as_dict(), "scores": SCORES}, option=orjson.OPT_INDENT_2))

    def _check_made_for(self, model: str | None, schema: str | None) -> None:
        """Raises ``JobError`` where it was fitted on the scores of another model, or of another schema's values."""
        if None not in (self.model, model) and _file_name(self.model) != _file_name(model):
            raise JobError(
                f"it was fitted on the scores of {self.model} and says nothing of those of {model}, which is "
                "asked here: fit one of its own (quarry calibrate), or leave --calibration out"
            )
        if None not in (self.schema, schema) and self.schema != schema:
            raise JobError(
                f"it was fitted on values of the schema {self.schema} and says nothing of those of {schema}: fit "
                "one of its own (quarry calibrate), or leave --calibration out"
            )

    @classmethod
    def load(
        cls, path: Path, *, model: str | None = None, schema: str | None = None, agreement: bool = False
    ) -> Calibration:
        """Read it, for a model and a schema, and for scores with or without ``agreement`` in them. Raises ``JobError`` naming
        the file, also for one of another's scores."""
        try:
            data = orjson.loads(path.read_bytes())
            made = cls.from_dict(data)
            if data.get("scores") != SCORES:
                raise JobError(
                    "it was fitted on scores that were counted in another way; fit one anew (quarry calibrate), into a new "
                    "--out: rows keep the confidence that they were given"
                )
            made._check_made_for(model, schema)
            if made.agreement is not agreement:
                raise JobError(
                    f"it was fitted on scores {'with' if made.agreement else 'without'} agreement, and this job's are "
                    f"{'with' if agreement else 'without'} it: give the --agreement that it was fitted with, or fit one anew "
                    "(quarry calibrate)"
                )
            return made
        except OSError as error:
            raise JobError(f"the calibration {path} cannot be read: {error.strerror}") from error
        except (orjson.JSONDecodeError, JobError) as error:
            raise JobError(f"{path}: {error}") from error


def _file_name(model: str | None) -> str:
    """Weights are named by their file, wherever that lies."""
    return (model or "").rpartition("/")[2]


def fit(pairs: Sequence[Pair], *, kind: Kind = "isotonic") -> Calibration:
    """The map of labelled values. Raises ``JobError`` for fewer than 20."""
    _check_enough(pairs)
    return _fitted(pairs, kind)


def _fitted(pairs: Sequence[Pair], kind: Kind) -> Calibration:
    points = _isotonic(pairs) if kind == "isotonic" else (_platt(pairs),)
    return Calibration(kind, points, len(pairs), lowest=min(score for score, _ in pairs))


def fit_both(
    values: Sequence[Pair], nulls: Sequence[Pair], *, kind: Kind = "isotonic", records: Sequence[int] | None = None
) -> Calibration:
    """One map for values and one for nulls; one for both where either has fewer than 20, or those of one record alone.
    ``records`` are those of the values, then of the nulls. Raises ``JobError``."""
    if not _apart(values, nulls, records):
        return fit([*values, *nulls], kind=kind)
    return replace(fit(values, kind=kind), nulls=fit(nulls, kind=kind))


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability plot: values whose confidence is from ``low`` to ``high``."""

    low: float
    high: float
    count: int
    confidence: float
    right: float


def reliability(pairs: Sequence[Pair], *, bins: int = 10) -> list[Bin]:
    """The bins of equal width that hold values, for a plot of share right over mean confidence."""
    held: dict[int, list[Pair]] = {}
    for pair in pairs:
        held.setdefault(min(int(pair[0] * bins), bins - 1), []).append(pair)
    return [
        Bin(
            number / bins,
            (number + 1) / bins,
            len(own),
            sum(score for score, _ in own) / len(own),
            sum(right for _, right in own) / len(own),
        )
        for number, own in sorted(held.items())
    ]


def expected_calibration_error(pairs: Sequence[Pair], *, bins: int = 10) -> float:
    """The mean gap between confidence and share right; 0 without values."""
    gaps = (one.count * abs(one.confidence - one.right) for one in reliability(pairs, bins=bins))
    return sum(gaps) / len(pairs) if pairs else 0.0


def brier_score(pairs: Sequence[Pair]) -> float:
    """The mean squared gap between confidence and what was (Brier 1950); 0 without values."""
    return sum((score - right) ** 2 for score, right in pairs) / len(pairs) if pairs else 0.0


def error_by_chance(pairs: Sequence[Pair], *, bins: int = 10, draws: int = 200, seed: int = 20_260_101) -> float:
    """The expected calibration error that these confidences would show on average if each were exactly the share that is
    right: few values leave gaps by chance. By consistency resampling (Bröcker and Smith 2007), ``draws`` times."""
    chance = random.Random(seed)
    scores = [score for score, _ in pairs]
    errors = [
        expected_calibration_error([(score, chance.random() < score) for score in scores], bins=bins)
        for _ in range(draws)
    ]
    return sum(errors) / draws


def held_out_pairs(
    pairs: Sequence[Pair], *, kind: Kind = "isotonic", folds: int = 5, records: Sequence[int] | None = None
) -> list[Pair]:
    """The pairs with calibrated scores, each from a map fitted on the other folds: what a calibration is worth is not told by
    the values that it was fitted on. ``records`` is the number of each pair's record: every ``folds``-th record is one fold,
    so that no value is judged by a map that was fitted on others of its record; without it each is a record's only one. Raises
    ``JobError`` for fewer than 20, and for those of one record alone."""
    _check_enough(pairs)
    whose = range(len(pairs)) if records is None else records
    numbers = sorted(set(whose))
    if len(numbers) == 1:
        raise JobError("a calibration needs labelled values of two records at least: one is judged by the others")
    fold_of = {record: rank % folds for rank, record in enumerate(numbers)}
    made = list(pairs)
    for fold in range(min(folds, len(numbers))):
        rest = [pair for pair, record in zip(pairs, whose, strict=True) if fold_of[record] != fold]
        fitted = _fitted(rest, kind)
        for at, ((score, right), record) in enumerate(zip(pairs, whose, strict=True)):
            if fold_of[record] == fold:
                made[at] = fitted.apply(score), right
    return made


def held_out_both(
    values: Sequence[Pair], nulls: Sequence[Pair], *, kind: Kind = "isotonic", records: Sequence[int] | None = None
) -> list[Pair]:
    """``held_out_pairs`` of the maps that ``fit_both`` makes, the values first. ``records`` are those of the values, then of the
    nulls."""
    if not _apart(values, nulls, records):
        return held_out_pairs([*values, *nulls], kind=kind, records=records)
    first, second = (None, None) if records is None else (records[: len(values)], records[len(values) :])
    return [
        *held_out_pairs(values, kind=kind, records=first),
        *held_out_pairs(nulls, kind=kind, records=second),
    ]


def _apart(values: Sequence[Pair], nulls: Sequence[Pair], records: Sequence[int] | None) -> bool:
    """Whether values and nulls have a map each: there are enough of both, and of more than one record."""
    if min(len(values), len(nulls)) < LEAST_PAIRS:
        return False
    return records is None or min(len(set(records[: len(values)])), len(set(records[len(values) :]))) > 1


def _check_enough(pairs: Sequence[Pair]) -> None:
    if len(pairs) < LEAST_PAIRS:
        raise JobError(f"a calibration needs {LEAST_PAIRS} labelled values at least, not {len(pairs)}")


def _isotonic(pairs: Sequence[Pair]) -> tuple[tuple[float, float], ...]:
    """Blocks of pooled values as points: each block's first and last score at its share right. Every block is drawn
    towards the whole's share by one value's weight, so that three lucky values are not certainty; nor are a hundred that
    are all of the set: half a right and half a wrong value are spread over it (the prior of Jeffreys; Brown, Cai and
    DasGupta 2001)."""
    blocks: list[list[float]] = []  # first score, last score, right, count
    for score, right in sorted(pairs):
        if blocks and blocks[-1][1] == score:
            blocks[-1][2] += right
            blocks[-1][3] += 1
        else:
            blocks.append([score, score, float(right), 1.0])
    pooled: list[list[float]] = []
    for block in blocks:
        pooled.append(block)
        while len(pooled) > 1 and pooled[-2][2] / pooled[-2][3] >= pooled[-1][2] / pooled[-1][3]:
            _, last, right_sum, count = pooled.pop()
            pooled[-1][1] = last
            pooled[-1][2] += right_sum
            pooled[-1][3] += count
    everything = len(pairs)
    share = (sum(right for _, right in pairs) + 0.5) / (everything + 1)
    points: list[tuple[float, float]] = []
    for first, last, right_sum, count in pooled:
        part = count / everything
        level = (right_sum + 0.5 * part + share) / (count + part + 1)
        level = max(level, points[-1][1]) if points else level
        points += [(first, level)] if first == last else [(first, level), (last, level)]
    return tuple(points)


def _platt(pairs: Sequence[Pair]) -> tuple[float, float]:
    """Newton's method with halved steps (Lin, Lin and Weng 2007, algorithm 1)."""
    positive = sum(right for _, right in pairs)
    negative = len(pairs) - positive
    high, low = (positive + 1) / (positive + 2), 1 / (negative + 2)
    data = [(_log_odds(score), high if right else low) for score, right in pairs]
    slope, offset = 0.0, math.log((positive + 1) / (negative + 1))

    def loss(a: float, b: float) -> float:
        total = 0.0
        for x, target in data:
            z = a * x + b
            total += max(z, 0.0) - z * target + math.log1p(math.exp(-abs(z)))
        return total

    best = loss(slope, offset)
    for _ in range(_STEPS):
        h11 = h22 = 1e-12
        h21 = g1 = g2 = 0.0
        for x, target in data:
            p = _sigmoid(slope * x + offset)
            weight, gap = p * (1 - p), p - target
            h11 += x * x * weight
            h22 += weight
            h21 += x * weight
            g1 += x * gap
            g2 += gap
        if abs(g1) < 1e-5 and abs(g2) < 1e-5:
            break
        determinant = h11 * h22 - h21 * h21
        step1 = -(h22 * g1 - h21 * g2) / determinant
        step2 = -(h11 * g2 - h21 * g1) / determinant
        size = 1.0
        while size > 1e-10:
            tried = loss(slope + size * step1, offset + size * step2)
            if tried < best:
                slope, offset, best = slope + size * step1, offset + size * step2, tried
                break
            size /= 2
        else:
            break
    return slope, offset


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _log_odds(score: float) -> float:
    inside = min(max(score, _EDGE), 1 - _EDGE)
    return math.log(inside / (1 - inside))
