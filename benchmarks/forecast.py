"""How often the forecast from a sample holds: many whole runs over the simulator, with corrections and faults.

    python -m benchmarks.forecast --runs 200

Each run is a job of its own: texts of uneven length (log-normal, or half short and half long), answers whose length
varies, a share of wrong answers between 0 and 30 % and transport faults, drawn from the run's seed. The sample is taken
as any job takes it; then the rest is asked, and what it took (money, tokens) is compared with the interval. With
``--latency`` the simulator answers after a time that varies, and the time of the rest is compared too; that is measured
with fewer runs, as it has to wait.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.endpoint import Settings
from extractors.forecast import LEVEL, Forecast, Interval
from extractors.stages import run_in_stages
from schemas.job import ExtractionJob
from tests.fakes.answers import record_of
from tests.fakes.qwen import FakeQwen, Fault, Faults, Reply

WRONG = (0.0, 0.02, 0.05, 0.1, 0.3)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run: its share of wrong answers, what was forecast, and what the rest took."""

    wrong: float
    told: Forecast
    cost: float
    input_tokens: int
    output_tokens: int
    seconds: float


def corpus(draw: random.Random, records: int) -> list[str]:
    """Texts of uneven length."""
    if draw.random() < 0.5:
        lengths = [min(8_000, int(math.exp(draw.gauss(5.5, 0.8)))) for _ in range(records)]
    else:
        lengths = [draw.randint(40, 120) if draw.random() < 0.5 else draw.randint(1_500, 3_000) for _ in range(records)]
    return [f"Note {n}: " + "".join(draw.choices("abcdefgh ", k=length)) for n, length in enumerate(lengths)]


def one_run(seed: int, folder: Path, *, records: int, sample: int, latency: float, calm: bool) -> Outcome:
    """A job with its sample, to its end."""
    draw = random.Random(seed)
    texts, wrong = corpus(draw, records), draw.choice(WRONG)
    source = folder / f"{seed}.jsonl"
    source.write_text("".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts)))

    def answer(body: Any) -> Reply:
        words = random.Random(f"{seed}/{record_of(body)}")
        items = ["".join(words.choices("abcdefgh", k=8)) for _ in range(words.randint(1, 12))]
        delay = latency * words.lognormvariate(0, 0.5) if latency else 0.0
        return Reply(json.dumps({"name": items[0], "tags": items}), delay=delay)

    # A wrong answer is corrected, a transport fault is tried again; half of the wrong ones are answers cut off.
    mix = {"wrong-types": wrong / 2, "truncated": wrong / 2}
    if not calm:
        mix |= {"503": 0.01, "429": 0.01, "reset": 0.005}
    told: list[Forecast] = []
    began: list[float] = []

    def hear(found: Forecast) -> None:
        told.append(found)
        began.append(time.monotonic())

    faulty: Callable[[Any], str | Reply | Fault] = Faults(seed, mix=mix, then=answer)
    with FakeQwen(faulty, keep=False) as qwen:
        job = ExtractionJob.model_validate(
            {"source": str(source), "schema": "name, tags: list[str]", "out": str(folder / f"out{seed}"), "id": "id",
             "model": "qwen-plus", "base_url": qwen.base_url, "sample": sample, "concurrency": 32}
        )  # fmt: skip
        report = run_in_stages(job, settings=Settings(), told=hear)
    seconds = time.monotonic() - began[0]
    [first] = [
        document
        for path in (folder / f"out{seed}" / "runs").glob("*.json")
        if "sample" in (document := json.loads(path.read_text()))
    ]
    assert report.cost is not None
    return Outcome(
        wrong,
        told[0],
        float(report.cost) - float(first["cost"]),
        report.input_tokens - first["input_tokens"],
        report.output_tokens - first["output_tokens"],
        seconds,
    )


def held(found: Interval | None, truth: float) -> int:
    """-1 below the interval, 1 above it, 0 inside; a billionth of leeway for the last digit of a sum."""
    assert found is not None
    leeway = 1e-9 * max(1e-9, abs(truth))
    return -1 if truth < found.low - leeway else 1 if truth > found.high + leeway else 0


def main() -> None:
    """Run, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--records", type=int, default=300)
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds, the median of a reply")
    parser.add_argument("--calm", action="store_true", help="no transport faults, which make the lane slow down")
    given = parser.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="quarry-forecast-") as folder:
        for seed in range(given.runs):
            outcomes.append(
                one_run(
                    seed,
                    Path(folder),
                    records=given.records,
                    sample=given.sample,
                    latency=given.latency,
                    calm=given.calm,
                )
            )
    print(
        f"{given.runs} runs of {given.records} records, samples of {given.sample}; the interval is meant for {LEVEL:.0%}"
    )
    looks: dict[str, Callable[[Outcome], tuple[Interval | None, float]]] = {
        "cost": lambda one: (one.told.cost, one.cost),
        "input tokens": lambda one: (one.told.input_tokens, one.input_tokens),
        "output tokens": lambda one: (one.told.output_tokens, one.output_tokens),
    }
    if given.latency:
        looks["time"] = lambda one: (one.told.seconds, one.seconds)
    for name, look in looks.items():
        table(name, outcomes, look)


def table(name: str, outcomes: list[Outcome], look: Callable[[Outcome], tuple[Interval | None, float]]) -> None:
    """How often it held, by the share of wrong answers and over all."""
    print(f"\n{name}\nwrong answers   runs   inside   below   above   half width (median)")
    for share in (*WRONG, None):
        some = [one for one in outcomes if share is None or one.wrong == share]
        if not some:
            continue
        places, widths = [], []
        for one in some:
            found, truth = look(one)
            places.append(held(found, truth))
            assert found is not None
            widths.append((found.high - found.low) / 2 / truth)
        shown = "all" if share is None else f"{share:.0%}"
        n = len(some)
        print(
            f"{shown:>13} {n:>6} {places.count(0) / n:>8.1%} {places.count(-1) / n:>7.1%} {places.count(1) / n:>7.1%} "
            f"{sorted(widths)[n // 2]:>10.1%}"
        )


if __name__ == "__main__":
    main()
