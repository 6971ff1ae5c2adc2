"""Look-ups under way are visible: in the bar at the terminal and in the run's summary while it lasts."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

from rich.console import Console

from extractors.endpoint import Settings
from extractors.engine import ChunkDone
from extractors.pipeline import Silent, run
from extractors.report import Progress
from extractors.store.plan import PlanCounts
from flows.cli.options import job_from
from flows.cli.terminal import Bar
from flows.summary import running_markdown
from flows.tally import Tally
from tests.fakes.qwen import FakeQwen, Reply


def test_the_bar_tells_of_look_ups_where_there_are_any() -> None:
    shown = io.StringIO()
    progress = Progress(total=10, looking_up=2, looked_up=17)
    with Bar(Console(file=shown, force_terminal=True, width=200)) as bar:
        bar.planned(PlanCounts(10, 0, 0, 10, 10, 0, 0, 0, 0, 0, 0, 0), progress)
        time.sleep(0.3)
    assert "TOOL_CALL 2 running, 17 done" in shown.getvalue()
    assert Progress().look_ups == ""


def test_the_summary_of_a_run_under_way_tells_of_look_ups() -> None:
    assert "- look-ups: TOOL_CALL 0 running, 3 done" in running_markdown(Tally(), Progress(looked_up=3))
    assert "TOOL_CALL" not in running_markdown(Tally(), Progress())


def test_the_engine_counts_them_and_a_reader_of_its_progress_sees_it(tmp_path: Path) -> None:
    class Watch(Silent):
        seen = 0

        def chunk_done(self, done: ChunkDone, progress: Progress) -> None:
            self.seen = progress.looked_up

    def answer(asked: dict[str, object]) -> Reply:
        if asked.get("tool_choice") == "auto" and "tool_call_id" not in json.dumps(asked["messages"]):
            return Reply(None, calls=(("find_vendor", '{"name": "Globex"}'), ("find", '{"name": "Globex"}')))
        return Reply('{"name": "Globex"}')

    (tmp_path / "in.jsonl").write_text('{"id": "a", "text": "Globex ordered."}\n')
    tool = "tests.extractors.tools.vendors:find_vendor"
    watch = Watch()
    with FakeQwen(answer) as qwen:
        job = job_from(
            {"source": str(tmp_path / "in.jsonl"), "schema_spec": "name", "out": str(tmp_path / "out"), "id": "id"}
            | {"model": "qwen-plus", "base_url": qwen.base_url, "tools": [tool, f"find={tool}"]}
        )
        assert run(job, settings=Settings(), watch=watch).rows == 1
    assert watch.seen == 2
