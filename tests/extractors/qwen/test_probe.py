"""What a live model is found to take, and the row that is written of it; over real HTTP."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from extractors.errors import JobError, KeyRejected, ModelMissing, ServerUnreachable
from extractors.qwen.overrides import with_row, write_override
from extractors.qwen.prices import pricing_for
from extractors.qwen.probe import Probed, probe
from extractors.qwen.profiles import load_profiles
from extractors.qwen.requests import Mode
from flows.cli import main
from tests.fakes.capabilities import Capability
from tests.fakes.qwen import FakeQwen, Fault, Reply, Rules

GOOD = '{"city": "Bern", "people": 134000}'


def answering(ability: Capability) -> Any:
    """A model that thinks where it would."""

    def answer(body: dict[str, Any]) -> Reply:
        told = body.get("enable_thinking")
        thinks = {"none": False, "always": True}.get(
            ability.thinking, ability.thinking == "on-by-default" if told is None else bool(told)
        )
        return Reply(
            GOOD, thinking="The sentence says so." if thinks else None, tokens=(60, 20, 0, 12 if thinks else 0)
        )

    return answer


async def probed(model: str, ability: Capability, **more: Any) -> tuple[Probed, FakeQwen]:
    rules = Rules(capabilities={model: ability})
    with FakeQwen(answering(ability), rules=rules) as qwen:
        profile = load_profiles().find(model, base_url=qwen.base_url)
        found = await probe(
            model,
            qwen.base_url,
            api_key=SecretStr("sk-x"),
            profile=more.get("profile", profile),
            pricing=pricing_for(profile, model, base_url=qwen.base_url),
            today=lambda: date(2026, 11, 23),
        )
        return found, qwen


async def test_a_model_with_schema_mode_and_thinking_on_by_default() -> None:
    ability = Capability(
        ("json_schema", "json_object", "tools", "prompted"),
        "on-by-default",
        max_output=50_000,
        schema_while_thinking=True,
    )
    found, qwen = await probed("qwen3.7-plus", ability)
    row = dict(found.row)
    assert row["modes"] == ["json_schema", "json_object", "tools", "prompted"]
    assert (row["thinking"], row["stream_only_thinking"]) == ("on-by-default", False)
    assert row["thinking_modes"] == ["json_schema", "prompted"]
    assert (row["max_output"], row["logprobs"], row["probed"]) == (50_000, False, "2026-11-23")
    assert row["name"] == "qwen3.7-plus" and "base" not in row
    assert len(found.findings) == qwen.count


async def test_a_model_without_a_switch_schemas_and_pictures() -> None:
    found, _ = await probed("qwen-max", Capability(("json_object", "prompted"), "none", max_output=8192))
    assert found.row["modes"] == ["json_object", "prompted"]
    assert found.row["thinking"] == "none"
    assert "thinking_modes" not in found.row
    switch = next(one for one in found.findings if one.about == "thinking switched off")
    assert switch.works is False and "enable_thinking" in switch.note
    assert switch.cost == 0, "a refused call costs nothing"


async def test_a_model_that_always_thinks_in_streams() -> None:
    found, _ = await probed(
        "qwq-plus", Capability(("prompted",), "always", "always"), profile=load_profiles().find("qwq-plus")
    )
    assert (found.row["thinking"], found.row["stream_only_thinking"]) == ("always", True)
    assert found.row["modes"] == found.row["thinking_modes"] == ["prompted"]
    assert (found.row["base"], found.row["match"]) == ("qwen-thinking", ["qwq-plus"])


async def test_an_answer_that_does_not_keep_the_schema_is_no_support() -> None:
    with FakeQwen(lambda body: "{}" if "response_format" in body else GOOD) as qwen:
        profile = load_profiles().find("qwen-max")
        found = await probe(
            "qwen-max", qwen.base_url, api_key=SecretStr(""), profile=profile,
            pricing=pricing_for(profile, "qwen-max", base_url=qwen.base_url),
        )  # fmt: skip
    assert found.row["modes"] == ["tools", "prompted"]


async def test_the_keywords_of_strict_schemas_are_tried_together_and_where_refused_one_by_one() -> None:
    def strict(body: dict[str, Any]) -> str | Fault:
        if '"pattern"' in json.dumps(body.get("response_format", {})):
            return Fault.status(400, "invalid_parameter_error", "json_schema: keyword pattern is not supported")
        return GOOD

    async def keywords(answer: Any) -> Any:
        with FakeQwen(answer) as qwen:
            profile = load_profiles().find("qwen3.7-plus")
            found = await probe("qwen3.7-plus", qwen.base_url, api_key=SecretStr(""), profile=profile,
                                pricing=pricing_for(profile, "qwen3.7-plus", base_url=qwen.base_url))  # fmt: skip
        return found.row["schema_keywords"]

    everything = await keywords(GOOD)
    assert {"minItems", "pattern", "const", "maximum"} <= set(everything)
    assert await keywords(strict) == [name for name in everything if name != "pattern"]


async def test_a_picture_is_tried_where_the_profile_sees() -> None:
    seeing = Capability(("json_object", "prompted"), "off-by-default", vision=True)
    found, _ = await probed("qwen3-vl-plus", seeing)
    assert found.row["vision"] is True
    blind, _ = await probed("qwen3-vl-plus", Capability(("json_object", "prompted"), "off-by-default"))
    assert blind.row["vision"] is False


async def test_every_call_says_what_it_cost_and_the_sum_is_theirs() -> None:
    found, _ = await probed("qwen-plus", Capability(("json_object", "prompted"), "off-by-default"))
    plain = next(one for one in found.findings if one.about == "mode prompted")
    assert plain.cost == (60 * Decimal("0.40") + 20 * Decimal("1.20")) / 1_000_000
    assert found.cost == sum(one.cost for one in found.findings if one.cost is not None)
    assert found.cost < Decimal("0.01")


@pytest.mark.parametrize(("status", "error"), [(401, KeyRejected), (404, ModelMissing)])
async def test_a_probe_that_cannot_begin_says_why(status: int, error: type[Exception]) -> None:
    profile = load_profiles().find("qwen-plus")
    with FakeQwen(Fault.status(status)) as qwen, pytest.raises(error):
        await probe("qwen-plus", qwen.base_url, api_key=SecretStr(""), profile=profile,
                    pricing=pricing_for(profile, "qwen-plus", base_url=qwen.base_url))  # fmt: skip
    with pytest.raises(ServerUnreachable):
        await probe("qwen-plus", qwen.base_url, api_key=SecretStr(""), profile=profile,
                    pricing=pricing_for(profile, "qwen-plus", base_url=qwen.base_url))  # fmt: skip


async def test_a_busy_service_is_asked_again() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    profile = load_profiles().find("qwen-max")
    with FakeQwen([Fault.status(429), GOOD]) as qwen:
        found = await probe("qwen-max", qwen.base_url, api_key=SecretStr(""), profile=profile, sleep=sleep,
                            pricing=pricing_for(profile, "qwen-max", base_url=qwen.base_url))  # fmt: skip
    assert (found.findings[0].works, found.findings[0].calls, waits) == (True, 2, [2.0])


# The profiles file ----------------------------------------------------------------------------------

MINE = """# mine
[[model]]
name = "house"   # ours
match = ["house-*"]
prices = [{ input = 1.50, output = 2 }]

# about the next one
[[model]]
name = "qwen-plus"
max_output = 1000
"""


def test_a_row_is_added_and_every_other_line_stays(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "profiles.toml"
    write_override(path, {"name": "a", "base": "qwen-plus", "match": ["a"], "modes": ["tools"], "logprobs": True})
    assert load_profiles(path).find("a").modes == (Mode.TOOLS,)
    assert with_row(MINE, {"name": "new", "max_output": 5}) == MINE + '\n[[model]]\nname = "new"\nmax_output = 5\n'


def test_a_row_that_is_there_gets_the_new_keys_and_keeps_its_others() -> None:
    changed = with_row(MINE, {"name": "house", "modes": ["tools"], "match": ["house-7b"]})
    assert changed == MINE.replace(
        'name = "house"   # ours\nmatch = ["house-*"]\nprices = [{ input = 1.50, output = 2 }]',
        'name = "house"\nmatch = ["house-7b"]\nprices = [{ "input" = 1.50, "output" = 2 }]\nmodes = ["tools"]',
    )


@pytest.mark.parametrize(
    "text", ["not toml [", 'model = "x"\n', 'model = [{ name = "inline" }]\n', '[[model]]\nname = "a"\nnote = """\n[[model]]\n"""\n']
)  # fmt: skip
def test_a_file_that_cannot_be_changed_safely_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(JobError):
        write_override(path, {"name": "new", "max_output": 5})
    assert path.read_text() == text


# The commands ---------------------------------------------------------------------------------------


def quarry(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr("sys.argv", ["quarry", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    return capsys.readouterr().out


def test_the_commands_probe_list_and_forget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUARRY_HOME", str(tmp_path))
    ability = Capability(("tools", "prompted"), "none")
    with FakeQwen(answering(ability), rules=Rules(capabilities={"qwen-plus": ability})) as qwen:
        told = json.loads(
            quarry(monkeypatch, capsys, "model", "probe", "qwen-plus", "--base-url", qwen.base_url, "--json")
        )
        assert told["written_to"] == str(tmp_path / "profiles.toml")
        assert "calls" in quarry(monkeypatch, capsys, "model", "probe", "qwen-plus", "--base-url", qwen.base_url)
    listed = json.loads(quarry(monkeypatch, capsys, "model", "list", "--json"))
    row = next(one for one in listed["profiles"] if one["name"] == "qwen-plus")
    assert (row["modes"], row["thinking"]) == (["tools", "prompted"], "none"), "the file is read by default"
    assert (row["bucket"], row["prices"][0]["input"]) == ("balanced", "0.40")
    (tmp_path / "learned.json").write_text(
        json.dumps({"lessons": [{"host": "h", "model": "m", "refused": ["tools"], "refused_thinking": [],
                                 "switch": None, "dated": date.today().isoformat(), "said": "no"}]})
    )  # fmt: skip
    assert json.loads(quarry(monkeypatch, capsys, "model", "list", "--json"))["learned"][0]["refused"] == ["tools"]
    assert quarry(monkeypatch, capsys, "model", "forget", "m") == "1 forgotten\n"
    assert not (tmp_path / "learned.json").exists()
