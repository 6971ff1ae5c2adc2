"""Confidence: which tokens a value is made of, what they are worth, and how calibration makes shares of scores."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from extractors.calibration import (
    Calibration,
    brier_score,
    error_by_chance,
    expected_calibration_error,
    fit,
    fit_both,
    held_out_both,
    held_out_pairs,
    reliability,
)
from extractors.confidence import token_scores
from extractors.corrections import value_at
from extractors.errors import JobError
from extractors.evaluate.reliability import Reliability
from extractors.extraction import Extraction
from extractors.positions import leaf_spans
from extractors.qwen import chat
from extractors.qwen.prices import Pricing
from extractors.qwen.replies import LEAST_LOGPROB, logprobs_of
from extractors.qwen.requests import ChatReply, Logprobs, Mode
from extractors.qwen.sse import Event
from extractors.qwen.streams import StreamReader
from extractors.recipe import ModelPolicy, Recipe, compile_recipe
from extractors.store.journal import entry_result, result_entry
from schemas.job import ExtractionJob
from schemas.outcomes import Extracted
from schemas.records import Record, content_fingerprint
from schemas.usage import Usage

FREE = Pricing.free()


# Where the values stand ------------------------------------------------------------------------------


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    ),
    st.sampled_from([None, 2]),
)
def test_every_leaf_is_found_at_its_path(value: Any, indent: int | None) -> None:
    text = "so: " + json.dumps({"a/b": value}, ensure_ascii=False, indent=indent)
    for path, (start, end) in leaf_spans(text, 4).items():
        found = text[start:end]
        wanted = value_at({"a/b": value}, path)
        assert json.loads(f'"{found}"' if isinstance(wanted, str) else found) == wanted


@given(st.text(st.sampled_from('{}[]",: 1antrue\\'), max_size=20))
def test_what_is_no_json_has_no_leaves_and_raises_nothing(text: str) -> None:
    assert isinstance(leaf_spans(text), dict)


def test_the_keys_of_a_correction_are_paths_already() -> None:
    assert set(leaf_spans('{"lines/0/price": 5, "a": {"x/y": 1}}', pointers=True)) == {"lines/0/price", "a/x~1y"}


# What the tokens say ---------------------------------------------------------------------------------


def told(*tokens: tuple[str, float]) -> tuple[str, Logprobs]:
    text = "".join(token for token, _ in tokens)
    content = [{"token": token, "bytes": list(token.encode()), "logprob": value} for token, value in tokens]
    logprobs = logprobs_of(content, text)
    assert logprobs is not None
    return text, logprobs


def test_a_value_is_worth_the_product_of_its_tokens_and_the_one_that_ends_it() -> None:
    text, logprobs = told(
        ('{"a": "', -5), ("Zü", -0.1), ("rich", -0.2), ('",', -0.3), (' "b":', -4), (" 7", -0.5), ("}", -0.6)
    )
    scores = token_scores(text, logprobs)
    assert scores["a"].score == pytest.approx(math.exp(-0.6))
    assert scores["b"].score == pytest.approx(math.exp(-1.1))


def test_where_a_key_is_a_choice_the_tokens_that_lead_to_a_value_count_too() -> None:
    """From the end of the value before it, so that each token counts once."""
    tokens = [("Sure: ", -9), ('{"', -0.01), ("a", -0.02), ('":["', -0.04), ("Zürich", -0.08), ('","', -0.16)]
    tokens += [("Bern", -0.32), ('"],"', -0.64), ("b", -1.28), ('":', -2.56), ("7", -5.12), ("}", -10.24)]
    text, logprobs = told(*tokens)
    scores = token_scores(text, logprobs, start=text.index("{"), keys=True)
    found = {path: round(-math.log(one.score), 2) for path, one in scores.items()}
    assert found == {"a/0": 0.31, "a/1": 0.96, "b": 19.2}
    plain = token_scores(text, logprobs, start=text.index("{"))
    assert {path: round(-math.log(one.score), 2) for path, one in plain.items()} == {
        "a/0": 0.24,
        "a/1": 0.96,
        "b": 15.36,
    }


def test_a_null_is_not_the_word_null() -> None:
    text, logprobs = told(('{"a":', 0), (" null", -0.1), (',"b":', 0), ('"null"', -0.2), ("}", 0))
    scores = token_scores(text, logprobs)
    assert (scores["a"].null, scores["b"].null) == (True, False)


def test_tokens_may_cut_a_character_in_two() -> None:
    data = '{"a":"é"}'.encode()
    content = [{"bytes": list(part), "logprob": -1} for part in (data[:7], data[7:])]
    logprobs = logprobs_of(content, data.decode())
    assert logprobs is not None and logprobs.ends == (7, len(data))
    assert token_scores(data.decode(), logprobs)["a"].score == pytest.approx(math.exp(-2))


def test_tokens_of_another_text_are_no_use() -> None:
    content = [{"token": "thinking", "logprob": -1}]
    assert logprobs_of(content, "{}") is None
    assert logprobs_of([{"token": "{}"}], "{}") is None
    assert logprobs_of([{"token": "{}", "logprob": None}], "{}") == Logprobs((2,), (LEAST_LOGPROB,))


@pytest.mark.parametrize(
    ("told", "counted"), [(0.7, 0.0), (1, 0.0), (math.inf, 0.0), (math.nan, LEAST_LOGPROB), (-9999, LEAST_LOGPROB)]
)
def test_no_token_is_more_than_certain_whatever_a_server_says(told: float, counted: float) -> None:
    logprobs = logprobs_of([{"token": '{"a":7}', "logprob": told}], '{"a":7}')
    assert logprobs == Logprobs((7,), (counted,))
    assert 0 <= token_scores('{"a":7}', logprobs)["a"].score <= 1


def test_a_reply_and_a_stream_tell_the_same_tokens() -> None:
    tokens = [{"token": "{", "logprob": -0.5, "bytes": [123]}, {"token": "}", "logprob": -0.25, "bytes": [125]}]
    body = {"choices": [{"message": {"content": "{}"}, "finish_reason": "stop", "logprobs": {"content": tokens}}]}
    whole = chat.decode(200, {}, orjson.dumps(body), model="m", pricing=FREE)
    reader = StreamReader(chat.take, model="m", pricing=FREE)
    for token in tokens:
        frame = {"choices": [{"delta": {"content": token["token"]}, "logprobs": {"content": [token]}}]}
        reader.feed(Event(orjson.dumps(frame)))
    reader.feed(Event(b"[DONE]"))
    streamed = reader.result()
    assert isinstance(whole, ChatReply) and isinstance(streamed, ChatReply)
    assert whole.logprobs == streamed.logprobs == Logprobs((1, 2), (-0.5, -0.25))
    assert entry_result(orjson.loads(orjson.dumps(result_entry(whole)))) == whole, "the journal keeps them"


# What a row says -------------------------------------------------------------------------------------


class Offer(BaseModel):
    name: str
    price: float | None = None
    kind: Literal["new", "used"] = "new"


TEXT = "Blue Kettle, 19.90"


def recipe(*, logprobs: bool = True, **options: Any) -> Recipe:
    job = ExtractionJob.model_validate({"source": "x.csv", "schema": "x", "out": "out", **options})
    policy = ModelPolicy("fake", Mode.PROMPTED, None, max_input_tokens=1000, max_output_tokens=4000, logprobs=logprobs)
    return compile_recipe(job, Offer, policy)


def reply(*tokens: tuple[str, float]) -> ChatReply:
    text, logprobs = told(*tokens)
    return ChatReply(text, "stop", Usage(1, 10, 10), model="fake", logprobs=logprobs)


def drive(using: Recipe, *replies: ChatReply) -> Extracted:
    extraction = Extraction(using, Record("r", TEXT, content_fingerprint(TEXT)))
    for one in replies:
        request = extraction.next_request()
        assert request is not None and request.logprobs is (using.policy.logprobs and using.confidence == "auto")
        extraction.receive(one)
    assert isinstance(extraction.outcome, Extracted), extraction.outcome
    return extraction.outcome


GOOD = (
    ('{"name":"', 0),
    ("Blue Kettle", -0.1),
    ('","price":', 0),
    ("null", -0.7),
    (',"kind":"', 0),
    ("used", -0.2),
    ('"}', 0),
)


def test_every_value_and_every_null_has_a_confidence() -> None:
    found = drive(recipe(), reply(*GOOD)).confidence
    assert found == {
        name: round(math.exp(value), 4) for name, value in (("name", -0.1), ("price", -0.7), ("kind", -0.2))
    }


def test_a_value_that_stands_nowhere_is_less_sure_and_a_choice_is_not() -> None:
    tokens = [("Red Pot", value) if token == "Blue Kettle" else (token, value) for token, value in GOOD]
    found = drive(recipe(), reply(*tokens)).confidence
    assert found["name"] < 0.5 < found["kind"]


def test_a_corrected_value_has_the_confidence_of_its_correction() -> None:
    bad = reply(('{"name":"Blue Kettle","price":', 0), ('"cheap"', -0.01), ("}", 0))
    good = reply(('{"price":', 0), (" 19.9", -0.9), ("}", -0.1))
    found = drive(recipe(), bad, good).confidence
    assert found["price"] == round(math.exp(-1.0), 4)


def test_without_token_probabilities_evidence_decides() -> None:
    answer = ChatReply('{"name":"Blue Kettle","price":7}', "stop", Usage(1, 10, 10), model="fake")
    found = drive(recipe(logprobs=False), answer).confidence
    assert found == {"name": 0.9, "price": 0.1, "kind": 0.85}
    assert drive(recipe(confidence="evidence"), reply(*GOOD)).confidence["kind"] == 0.85
    assert drive(recipe(confidence="never"), reply(*GOOD)).confidence == {}


def test_a_calibration_changes_the_numbers_and_the_recipe(tmp_path: Path) -> None:
    Calibration("isotonic", ((0.0, 0.25), (1.0, 0.25)), 40).save(tmp_path / "c.json")
    calibrated = recipe(calibration=str(tmp_path / "c.json"))
    assert calibrated.id != recipe().id == recipe(confidence="never", review_below=0.9).id
    assert set(drive(calibrated, reply(*GOOD)).confidence.values()) == {0.25}
    assert calibrated.document["calibration"]["pairs"] == 40


def test_a_calibration_of_another_model_or_schema_is_refused(tmp_path: Path) -> None:
    made = Calibration("isotonic", ((0.0, 0.25), (1.0, 0.25)), 40)
    path = tmp_path / "c.json"
    for model, schema in (("fake", "offer"), ("some/where/fake", "offer"), (None, None)):
        replace(made, model=model, schema=schema).save(path)
        assert recipe(calibration=str(path)).calibration == replace(made, model=model, schema=schema)
    replace(made, model="other", schema="offer").save(path)
    with pytest.raises(
        JobError,
        match=r"c.json: it was fitted on the scores of other and says nothing of those of fake, .*quarry calibrate.* leave",
    ):
        recipe(calibration=str(path))
    replace(made, model="fake", schema="product").save(path)
    with pytest.raises(JobError, match=r"schema product and says nothing of those of offer: fit one"):
        recipe(calibration=str(path))


# Calibration -----------------------------------------------------------------------------------------


def made_pairs(count: int, seed: int = 3) -> list[tuple[float, bool]]:
    """Scores that say twice the odds that there are."""
    draw = random.Random(seed)
    return [(score, draw.random() < score**2) for score in (draw.random() for _ in range(count))]


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_calibrated_confidence_is_the_share_that_is_right(kind: Literal["isotonic", "platt"]) -> None:
    pairs, fresh = made_pairs(1500), made_pairs(1500, seed=4)
    fitted = fit(pairs, kind=kind)
    before = expected_calibration_error(fresh)
    after = expected_calibration_error([(fitted.apply(score), right) for score, right in fresh])
    assert before > 0.12 and after < 0.05
    assert expected_calibration_error(held_out_pairs(pairs, kind=kind)) < 0.06


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([i / 9 for i in range(10)]), st.booleans()), min_size=20, max_size=60))
def test_an_isotonic_map_never_falls_and_stays_between_0_and_1(pairs: list[tuple[float, bool]]) -> None:
    fitted = fit(pairs)
    levels = [fitted.apply(i / 100) for i in range(101)]
    assert levels == sorted(levels) and levels[0] >= 0 and levels[-1] <= 1
    assert Calibration.from_dict(orjson.loads(orjson.dumps(fitted.as_dict()))) == fitted


def test_chance_alone_leaves_an_error_that_more_values_lessen() -> None:
    draw = random.Random(11)
    perfect = [(score, draw.random() < score) for score in (draw.random() for _ in range(4000))]
    few, many = error_by_chance(perfect[:200]), error_by_chance(perfect)
    assert few > 0.06 and many < 0.025
    assert abs(expected_calibration_error(perfect) - many) < 0.01, "what is perfect shows just that"
    assert error_by_chance(perfect[:200]) == few
    certain = [(1.0, True)] * 50
    assert (error_by_chance(certain), brier_score(certain), brier_score([(0.5, True), (0.5, False)])) == (0, 0, 0.25)


def test_isotonic_pools_the_values_that_fall() -> None:
    pairs = [(0.1, False)] * 9 + [(0.2, True)] * 10 + [(0.3, False)] * 10 + [(0.9, True)] * 11
    fitted = fit(pairs)
    assert fitted.apply(0.2) == fitted.apply(0.3) == pytest.approx((10 + 0.25 + 21.5 / 41) / 21.5)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
def test_values_that_are_all_right_are_no_certainty_and_say_nothing_of_lower_scores(
    kind: Literal["isotonic", "platt"], tmp_path: Path
) -> None:
    few, many = fit([(0.9, True)] * 20, kind=kind), fit([(0.9, True)] * 200, kind=kind)
    assert 0.9 < few.apply(0.9) < 0.98 < many.apply(0.9) < 0.999
    assert few.apply(0.9) == few.apply(1.0)
    for one in (few, many):
        assert one.apply(0.1) < 0.12 and one.apply(0.0) == 0 and one.apply(0.45) == pytest.approx(one.apply(0.9) / 2)
    wrong = fit([(0.5, False)] * 20, kind=kind)
    assert 0.02 < wrong.apply(0.5) < 0.05 and wrong.apply(0.1) < 0.01
    few.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == few
    assert Calibration.from_dict({**few.as_dict(), "lowest": None}).apply(0.1) == few.apply(0.9), (
        "as older files have it"
    )


@pytest.mark.parametrize(
    ("drawn", "right"),
    [
        (lambda draw: draw.random(), lambda score: score**2),
        (lambda draw: draw.random() ** 0.3, lambda score: score),
        (lambda draw: draw.random(), lambda score: score**0.3),
    ],
)
def test_smoothed_shares_are_no_further_from_the_truth_where_scores_tell_right_from_wrong(
    drawn: Callable[[random.Random], float], right: Callable[[float], float]
) -> None:
    """Against the map as it was: drawn to the whole's share alone, and flat below the lowest score."""
    apart = [0.0, 0.0]
    for seed in range(40):
        draw = random.Random(seed)
        pairs = [(score, draw.random() < right(score)) for score in (drawn(draw) for _ in range(100))]
        fitted = fit(pairs)
        share = sum(one for _, one in pairs) / 100
        plain = []
        for score, level in fitted.points:
            ends = [one for one, other in fitted.points if other == level]
            block = [one for at, one in pairs if ends[0] <= at <= ends[-1]]
            plain.append((score, (sum(block) + share) / (len(block) + 1)))
        before = Calibration("isotonic", tuple(plain), 100)
        fresh = [drawn(draw) for _ in range(500)]
        for at, one in enumerate((before, fitted)):
            apart[at] += sum(abs(one.apply(score) - right(score)) for score in fresh)
    assert apart[1] <= apart[0]


def test_nulls_have_a_map_of_their_own_where_there_are_enough(tmp_path: Path) -> None:
    values, nulls = made_pairs(200), [(score, not right) for score, right in made_pairs(200, seed=5)]
    both = fit_both(values, nulls)
    assert both.apply(0.9) > both.apply(0.1) + 0.5
    assert abs(both.apply(0.9, null=True) - both.apply(0.1, null=True)) < 0.2, "their scores fall: they tell nothing"
    both.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == both
    assert expected_calibration_error(held_out_both(values, nulls)) < 0.08
    shared = fit_both(values, nulls[:19])
    assert shared.nulls is None and shared.apply(0.9) == shared.apply(0.9, null=True)


@pytest.mark.parametrize("kind", ["isotonic", "platt"])
@pytest.mark.parametrize("count", [20, 24, 39])
def test_what_is_enough_for_a_calibration_is_enough_to_tell_its_worth_by_folds(
    count: int, kind: Literal["isotonic", "platt"]
) -> None:
    assert len(held_out_pairs(made_pairs(count), kind=kind)) == count
    told = held_out_both(made_pairs(count), [(0.9, False)] * count, kind=kind)
    assert [right for _, right in told].count(False) >= count and max(score for score, _ in told[count:]) < 0.1


def test_no_value_is_judged_by_a_map_that_was_fitted_on_others_of_its_record() -> None:
    """The one record that is right has the others' share: what they say of it is that it is wrong."""
    pairs = [(record / 10, record == 9) for record in range(10) for _ in range(6)]
    records = [record for record in range(10) for _ in range(6)]
    by_record, by_value = held_out_pairs(pairs, records=records), held_out_pairs(pairs)
    assert [right for _, right in by_record] == [right for _, right in pairs]
    assert max(score for score, _ in by_record[-6:]) < 0.1 and min(score for score, _ in by_value[-6:]) > 0.7
    with pytest.raises(JobError, match="two records at least"):
        held_out_pairs(pairs, records=[7] * 60)


def test_nulls_of_one_record_have_no_map_of_their_own() -> None:
    values, nulls, records = made_pairs(60), [(0.5, True)] * 25, [*range(60), *([3] * 25)]
    assert fit_both(values, nulls).nulls is not None and fit_both(values, nulls, records=records).nulls is None
    told = held_out_both(values, nulls, records=records)
    assert [right for _, right in told] == [right for _, right in [*values, *nulls]]


def test_the_threshold_that_is_told_lets_the_values_stand_that_have_just_it() -> None:
    level = 0.95267
    fitted = Calibration("isotonic", ((0.5, level),), 20)
    found = Reliability(9, 0.1, 0.1, 0.1, [], fitted, max_error=0.05, threshold=level, wrong=1)
    assert found.as_dict()["threshold"] <= round(level, 4) and found.route_below == 0.9526


def test_the_bins_of_a_reliability_plot_and_the_error_by_hand() -> None:
    pairs = [(0.95, True), (0.95, False), (0.25, False), (0.25, False)]
    low, high = reliability(pairs)
    assert (low.low, low.count, low.right) == (0.2, 2, 0.0) and (high.confidence, high.right) == (0.95, 0.5)
    assert expected_calibration_error(pairs) == pytest.approx(0.5 * 0.25 + 0.5 * 0.45)


def test_a_map_of_scores_that_were_counted_in_another_way_is_refused(tmp_path: Path) -> None:
    fitted = fit([(score / 40, score > 20) for score in range(40)])
    fitted.save(tmp_path / "c.json")
    assert Calibration.load(tmp_path / "c.json") == fitted
    (tmp_path / "old.json").write_text(json.dumps(fitted.as_dict()))
    with pytest.raises(JobError, match=r"old.json: it was fitted on scores .* fit one anew"):
        Calibration.load(tmp_path / "old.json")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"kind": "platt", "points": [[0.5, 1], [0.7, 1]]}, "one slope and offset, not 2"),
        ({"kind": "isotonic", "points": [[0.5, 0.2], [0.7, 1.2]]}, "outside of 0 to 1"),
        ({"kind": "isotonic", "points": [[0.2, 0.3], [0.5, 0.9], [0.7, 0.4]]}, "falls at score 0.7"),
        (
            {
                "kind": "isotonic",
                "points": [[0.5, 1]],
                "nulls": {"kind": "isotonic", "points": [[0.5, 1], [0.6, 0]], "pairs": 9},
            },
            "falls at score 0.6",
        ),
        (
            {"kind": "platt", "points": [[3.5, -2]], "nulls": {"kind": "cubic", "points": [[1, 1]], "pairs": 9}},
            "no cal",
        ),
    ],
)
def test_a_map_that_would_fail_every_record_is_refused_at_the_start(told: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError, match=said):
        Calibration.from_dict({**told, "pairs": 30})


def test_too_few_values_and_a_broken_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="20 labelled values"):
        fit(made_pairs(19))
    (tmp_path / "c.json").write_text('{"kind": "isotonic", "points": [[0.5, 1], [0.2, 1]], "pairs": 9}')
    with pytest.raises(JobError, match=r"c\.json: this is no calibration"):
        Calibration.load(tmp_path / "c.json")
