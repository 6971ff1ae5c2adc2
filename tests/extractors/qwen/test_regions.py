"""Regions, their addresses, and what a refused key is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from extractors.credentials import KeyAdvice, QwenCredentials
from extractors.endpoint import Settings, resolve_endpoint
from extractors.errors import JobError, KeyRejected
from extractors.pipeline import run
from extractors.qwen.prices import Pricing
from extractors.qwen.profiles import load_profiles
from extractors.qwen.regions import REGIONS, host_of, key_advice, region_named, region_of
from extractors.qwen.requests import CallError, ErrorKind, Mode
from extractors.qwen.transport import HttpTransport
from flows.cli import main
from schemas.job import ExtractionJob
from tests.end_to_end.things import job_for, write_things
from tests.extractors.test_fallback import ask
from tests.fakes.qwen import FakeQwen, Fault

BEIJING = "https://dashscope.aliyuncs.com/compatible-mode/v1"
SINGAPORE = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"


def address(settings: Settings | None = None, **options: Any) -> str | None:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "x", "model": "qwen-plus", **options})
    return resolve_endpoint(job, settings or Settings()).base_url


@pytest.mark.parametrize(
    ("name", "workspace", "url"),
    [
        ("cn-beijing", None, BEIJING),
        ("beijing", None, BEIJING),
        ("intl", None, SINGAPORE),
        ("US-EAST-1", None, "https://dashscope-us.aliyuncs.com/compatible-mode/v1"),
        ("hongkong", None, "https://cn-hongkong.dashscope.aliyuncs.com/compatible-mode/v1"),
        ("singapore", "ws-1", "https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1"),
        ("frankfurt", "llm_A9", "https://llm_A9.eu-central-1.maas.aliyuncs.com/compatible-mode/v1"),
    ],
)
def test_a_region_and_a_workspace_are_an_address(name: str, workspace: str | None, url: str) -> None:
    assert region_named(name).base_url(workspace) == url
    assert address(region=name, workspace=workspace) == url


@pytest.mark.parametrize("region", REGIONS, ids=lambda region: region.id)
def test_the_region_of_every_address_is_known(region: Any) -> None:
    assert region_of(region.base_url("ws1")) is region
    if region.shared:
        assert region_of(region.base_url()) is region
        assert region_of(region.shared) is region


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/v1", "https://openrouter.ai/api/v1", "", "https://evil-dashscope.aliyuncs.com.example"])  # fmt: skip
def test_other_addresses_have_no_region(url: str) -> None:
    assert region_of(url) is None


@pytest.mark.parametrize("workspace", ["-x", "a b", "a.b", "", "a" * 65, "x/../y", "ws@host"])
def test_a_workspace_id_that_cannot_stand_in_a_host_is_refused(workspace: str) -> None:
    with pytest.raises(JobError, match="no workspace id"):
        region_named("intl").base_url(workspace)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(JobError, match="cn-beijing"):
        address(region="mars")
    with pytest.raises(JobError, match="add --workspace"):
        address(region="tokyo")
    with pytest.raises(JobError, match="needs --region"):
        address(workspace="ws1")
    with pytest.raises(JobError, match=r"set --region .* or --base-url"):
        address()


def test_the_job_goes_before_the_environment_and_an_address_before_a_region() -> None:
    environment = {"DASHSCOPE_REGION": "beijing", "QWEN_WORKSPACE": "ws1"}
    assert (
        address(Settings.from_environment(environment)) == "https://ws1.cn-beijing.maas.aliyuncs.com/compatible-mode/v1"
    )
    assert address(Settings.from_environment({"QWEN_BASE_URL_COMPAT": BEIJING, **environment})) == BEIJING
    assert address(Settings(base_url=BEIJING), region="intl") == SINGAPORE
    assert address(Settings(region="intl"), base_url=BEIJING) == BEIJING
    assert address(Settings(region="intl"), workspace="w") == region_named("intl").base_url("w")


def test_a_region_alone_means_the_hosted_default_model() -> None:
    job = ExtractionJob.model_validate({"source": "x", "schema": "x", "out": "x", "region": "intl"})
    assert resolve_endpoint(job, Settings()).model == "qwen-plus"
    # In the environment it belongs to other tools as well: it does not turn the embedded model off.
    bare = job.model_copy(update={"region": None})
    assert resolve_endpoint(bare, Settings(region="intl")).policy.mode is Mode.GRAMMAR


def test_a_host_keeps_its_port() -> None:
    assert (host_of("http://LocalHost:80/v1"), host_of("dashscope.aliyuncs.com/x")) == (
        "localhost:80",
        "dashscope.aliyuncs.com",
    )


# Keys -----------------------------------------------------------------------------------------------


def test_a_key_in_the_wrong_region_is_told_of_the_regions() -> None:
    advice = key_advice(SINGAPORE, "sk-123")
    assert "dashscope-intl.aliyuncs.com is of Singapore (ap-southeast-1)" in advice
    assert "--region cn-beijing (Beijing)" in advice
    assert "--region ap-northeast-1 (Tokyo, with --workspace)" in advice
    assert "--region ap-southeast-1" not in advice


def test_a_plan_s_key_is_told_of_the_plans_addresses() -> None:
    assert "Coding Plan" in key_advice(SINGAPORE, "sk-sp-abc")
    assert "https://coding-intl.dashscope.aliyuncs.com/v1" in key_advice(BEIJING, "sk-sp-abc")
    assert key_advice("https://coding-intl.dashscope.aliyuncs.com/v1", "sk-sp-abc") == ""
    assert key_advice("http://127.0.0.1:1/v1", "sk-abc") == ""


async def test_a_401_comes_with_the_advice_and_other_errors_do_not() -> None:
    with FakeQwen([Fault.status(401), Fault.status(403), Fault.status(429)]) as qwen:
        key = SecretStr("sk-marked-key-000")
        async with HttpTransport(
            qwen.base_url, api_key=key, pricing=Pricing.free(), profile=load_profiles().find("qwen-plus")
        ) as transport:
            call = KeyAdvice(transport, SINGAPORE, key)
            refused, denied, slow = [await call(ask(Mode.PROMPTED)) for _ in range(3)]
    assert isinstance(refused, CallError) and refused.kind is ErrorKind.KEY
    assert "is of Singapore" in refused.message
    assert "sk-marked" not in refused.message
    assert all(isinstance(one, CallError) and "Singapore" not in one.message for one in (denied, slow))


def test_a_run_with_a_plan_s_key_ends_with_the_sentence(tmp_path: Path) -> None:
    source = write_things(tmp_path / "things.jsonl", range(2))
    with FakeQwen(Fault.status(401)) as qwen, pytest.raises(KeyRejected, match="Token Plan") as caught:
        run(job_for(source, tmp_path / "out", qwen), settings=Settings(api_key=SecretStr("sk-sp-0123456789")))
    assert "sk-sp-0123456789" not in str(caught.value)


def test_credentials_never_show_the_key() -> None:
    environment = {"DASHSCOPE_API_KEY": " sk-marked-key-000 ", "DASHSCOPE_API_REGION": "intl", "QWEN_WORKSPACE": " "}
    credentials = QwenCredentials.from_environment(environment)
    settings = Settings.from_environment(environment)
    assert credentials.api_key.get_secret_value() == "sk-marked-key-000"
    assert (credentials.address(), credentials.workspace) == (SINGAPORE, None)
    assert settings.credentials == credentials
    for shown in (repr(credentials), str(credentials), credentials.model_dump_json(), repr(settings), str(settings)):
        assert "marked" not in shown


# The commands ---------------------------------------------------------------------------------------


def quarry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[object, str, str]:
    monkeypatch.setattr("sys.argv", ["quarry", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    return ended.value.code, out, " ".join(err.split())


def test_a_wrong_region_on_the_command_line_is_named_with_the_right_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_things(tmp_path / "things.jsonl", range(1))
    base = ["plan", str(source), "--schema", "name", "--out", str(tmp_path / "o"), "--region"]
    code, _, said = quarry(monkeypatch, capsys, *base, "mars")
    assert code == 2 and "cn-beijing (beijing or cn)" in said
    code, _, said = quarry(monkeypatch, capsys, *base, "intl", "--workspace", "a.b")
    assert code == 2 and "no workspace id" in said


def test_the_doctor_tells_the_region_and_that_a_key_is_a_plan_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", "sk-sp-marked-0123456789")
    monkeypatch.setenv("DASHSCOPE_REGION", "intl")
    monkeypatch.setattr("extractors.connect.liveness", lambda address: _nobody)
    _, out, _ = quarry(monkeypatch, capsys, "doctor")
    assert "ok  region: Singapore (ap-southeast-1)" in out
    assert "warning  key: the key begins with sk-sp-" in out
    assert "marked" not in out


async def _nobody() -> str | None:
    return None
