from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractors.errors import JobError
from extractors.qwen.prices import Pricing, Tier, pricing_for
from extractors.qwen.profiles import is_loopback, load_profiles
from extractors.qwen.requests import Mode
from schemas.usage import Usage

HOSTED = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"


@pytest.mark.parametrize(
    ("name", "row", "mode", "flag"),
    [
        ("qwen-plus", "qwen-plus", Mode.JSON_OBJECT, False),
        ("qwen-plus-2025-12-01", "qwen-plus-snapshot", Mode.JSON_OBJECT, False),
        ("qwen-plus-latest", "qwen-plus", Mode.JSON_OBJECT, False),
        ("qwen-max", "qwen-max", Mode.JSON_OBJECT, None),
        ("qwen3-max", "qwen3-max", Mode.JSON_OBJECT, False),
        ("qwen3.7-plus", "qwen3.7-plus", Mode.JSON_SCHEMA, False),
        ("qwen3.8-flash", "qwen3.8-flash", Mode.JSON_SCHEMA, False),
        ("qwen3.6-plus", "qwen3.6-plus", Mode.JSON_OBJECT, False),
        ("Qwen/Qwen3-32B", "qwen3-open", Mode.JSON_OBJECT, False),
        ("qwen3-30b-a3b-instruct-2507", "qwen3-instruct-2507", Mode.JSON_OBJECT, None),
        ("qwen3-235b-a22b-thinking-2507", "qwen-thinking", Mode.PROMPTED, None),
        ("qwq-32b", "qwen-thinking", Mode.PROMPTED, None),
        ("qwen3-coder-plus", "qwen3-coder", Mode.JSON_OBJECT, None),
        ("qwen-vl-ocr", "qwen-vl-ocr", Mode.PROMPTED, None),
        ("local-0.5b", "local-0.5b", Mode.GRAMMAR, None),
        ("local-1.5b", "local-1.5b", Mode.GRAMMAR, None),
        ("nobody-knows-me", "generic", Mode.JSON_OBJECT, None),
    ],
)
def test_a_name_finds_its_most_specific_row(name: str, row: str, mode: Mode, flag: bool | None) -> None:
    profile = load_profiles().find(name)
    assert (profile.name, profile.modes[0], profile.thinking_flag) == (row, mode, flag)


def test_what_runs_on_this_machine_is_self_hosted_and_free() -> None:
    url = "http://127.0.0.1:8080/v1"
    profile = load_profiles().find("qwen3-8b", base_url=url)
    assert (profile.name, profile.modes[0], profile.switch) == (
        "self-hosted",
        Mode.JSON_SCHEMA,
        "chat_template_kwargs",
    )
    assert pricing_for(profile, "qwen3-8b", base_url=url).is_free


def test_a_priced_hosted_name_on_this_machine_is_a_gateway_and_costs_what_the_service_costs() -> None:
    url = "http://127.0.0.1:8080/v1"
    profile = load_profiles().find("qwen-plus", base_url=url)
    assert profile.name == "qwen-plus"
    assert not pricing_for(profile, "qwen-plus", base_url=url).is_free


def test_an_embedded_model_is_free() -> None:
    profile = load_profiles().find("local-1.5b")
    assert pricing_for(profile, "local-1.5b", base_url=None).cost(Usage(1, 1000, 1000)) == 0


def test_the_user_s_file_changes_the_keys_it_gives_and_adds_rows(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[[model]]\nname = "qwen-plus"\nprices = [{ input = 9, output = 10 }]\n'
        '[[model]]\nname = "house"\nmatch = ["house-*"]\nmodes = ["tools"]\nprices = [{ input = 1, output = 2 }]\n'
    )
    profiles = load_profiles(own)
    plus = profiles.find("qwen-plus")
    assert (plus.max_output, plus.prices[0].output, plus.prices[0].cached_price) == (32768, Decimal(10), Decimal("1.8"))
    house = profiles.find("house-7b", base_url="http://localhost:1")
    assert (house.name, house.modes) == ("house", (Mode.TOOLS,))
    assert not pricing_for(house, "house-7b", base_url="http://localhost:1").is_free


@pytest.mark.parametrize(
    "text",
    [
        "not toml [",
        "[[model]]\nmatch = ['x']\n",
        '[[model]]\nname = "x"\nmodes = ["telepathy"]\n',
        '[[model]]\nname = "x"\ncolour = "red"\n',
        '[[model]]\nname = "x"\nprices = [{ input = 1, output = 1, up_to = 5 }]\n',
        'model = "x"\n',
        "x = 1\n",
    ],
)
def test_a_wrong_profiles_file_is_the_user_s_to_mend(tmp_path: Path, text: str) -> None:
    own = tmp_path / "own.toml"
    own.write_text(text)
    with pytest.raises(JobError, match=r"own\.toml"):
        load_profiles(own)


def test_a_missing_profiles_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"none\.toml"):
        load_profiles(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://localhost:1/v1", True),
        ("127.0.0.9:80", True),
        ("http://[::1]/", True),
        ("http://localhost.example.com", False),
        ("https://127.0.0.1.example.com", False),
        ("http://192.168.1.2", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_only(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_a_row_may_start_from_another_one(tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[[model]]\nname = "house"\nbase = "qwen-plus"\nmatch = ["house"]\nmodes = ["tools"]\n')
    house, plus = (load_profiles(own).find(name) for name in ("house", "qwen-plus"))
    assert (house.modes, house.prices, house.max_input) == ((Mode.TOOLS,), plus.prices, plus.max_input)
    own.write_text('[[model]]\nname = "house"\nbase = "nobody"\n')
    with pytest.raises(JobError, match="nobody"):
        load_profiles(own)


def test_every_family_has_its_bucket_and_models_that_see_say_how_many_pictures_they_take() -> None:
    rows = load_profiles().rows
    assert {"fast", "balanced", "max", "vision", "embedding", "long"} <= {row.bucket for row in rows}
    assert [row.name for row in rows if row.vision and not row.max_images] == []
    assert [row.name for row in rows if row.bucket == "vision" and not row.vision] == []


def test_modes_while_thinking_are_never_those_that_the_service_refuses_then() -> None:
    for row in load_profiles().rows:
        if row.thinking != "none" and not row.loopback:
            assert not {Mode.JSON_OBJECT, Mode.TOOLS} & set(row.thinking_modes), row.name


def test_snapshots_tell_logprobs_and_stable_names_do_not() -> None:
    profiles = load_profiles()
    assert profiles.find("qwen-plus-2025-07-28").logprobs
    assert not profiles.find("qwen-plus").logprobs
    assert profiles.find("qwen-plus-2025-07-28").prices == profiles.find("qwen-plus").prices


def test_every_price_row_is_dated() -> None:
    assert [row.name for row in load_profiles().rows if row.prices and not row.dated] == []


# Prices ---------------------------------------------------------------------------------------------


def test_the_tier_is_chosen_by_the_whole_input_and_holds_for_all_of_it() -> None:
    price = pricing_for(load_profiles().find("qwen3-max"), "qwen3-max", base_url=HOSTED)
    assert price.cost(Usage(1, 32_000, 1000)) == Decimal("0.0384") + Decimal("0.006")
    assert price.cost(Usage(1, 32_001, 1000)) == Decimal("0.0768024") + Decimal("0.012")


def test_cached_input_is_cheaper_and_thinking_dearer() -> None:
    price = pricing_for(load_profiles().find("qwen-plus"), "qwen-plus", base_url=HOSTED)
    assert price.cost(Usage(1, 1_000, 0, cached_tokens=500)) == Decimal("0.0002") + Decimal("0.00004")
    assert price.cost(Usage(1, 0, 1_000, reasoning_tokens=10)) == Decimal("0.004")


def test_an_explicit_cache_entry_is_dearer_to_write_and_the_worst_case_knows() -> None:
    plain = load_profiles().find("qwen-plus")
    marked = plain.model_copy(update={"cache": "explicit"})
    usual, worst = (pricing_for(row, "qwen-plus", base_url=HOSTED).worst_cost(1_000_000, 0) for row in (plain, marked))
    assert usual is not None and worst == usual * Decimal("1.25")


def test_the_worst_case_counts_the_thinking_that_was_asked_for() -> None:
    row = load_profiles().find("qwen-plus")
    assert pricing_for(row, "qwen-plus", base_url=HOSTED).max_thinking == row.max_thinking
    assert pricing_for(row, "qwen-plus", base_url=HOSTED, thinking=500).max_thinking == 500


def test_an_unknown_price_is_none_and_not_nothing() -> None:
    price = pricing_for(load_profiles().find("qwen3-32b"), "qwen3-32b", base_url=HOSTED)
    assert (price.known, price.cost(Usage(1, 10, 10)), price.worst_cost(10, 10)) == (False, None, None)


def test_a_model_that_our_table_lacks_is_priced_from_the_published_list() -> None:
    profile = load_profiles().find("qwen/qwen3.5-27b")
    price = pricing_for(profile, "qwen/qwen3.5-27b", base_url="https://openrouter.ai/api/v1")
    assert (price.source, price.known, price.is_free) == ("genai-prices", True, False)


@given(
    st.sampled_from([row.name for row in load_profiles().rows if row.prices]),
    st.integers(0, 400_000),
    st.integers(0, 70_000),
    st.data(),
)
def test_no_usage_costs_more_than_the_worst_case(name: str, fresh: int, made: int, data: st.DataObject) -> None:
    price = pricing_for(load_profiles().find(name), name, base_url=HOSTED)
    used = data.draw(st.integers(0, fresh))
    given_out = data.draw(st.integers(0, made))
    cached = data.draw(st.integers(0, used))
    thought = data.draw(st.integers(0, given_out))
    cost = price.cost(Usage(1, used, given_out, cached, thought))
    worst = price.worst_cost(fresh, made, thinks=True)
    assert cost is not None and worst is not None
    assert cost <= worst


def test_a_tier_above_the_input_does_not_raise_the_worst_case() -> None:
    price = Pricing((Tier(Decimal(1), Decimal(1), up_to=100), Tier(Decimal(9), Decimal(9))))
    assert price.worst_cost(100, 0) == Decimal("0.0001")
    assert price.worst_cost(101, 0) == Decimal("0.000909")
