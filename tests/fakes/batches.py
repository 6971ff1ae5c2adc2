"""The batches API on a fast clock: lines are answered like chat requests, and anything may go wrong with them.

A batch ends when it was looked at ``polls`` times, whatever the clock says.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from tests.fakes.asked import Body
from tests.fakes.files import Files
from tests.fakes.sse import http

LineFault = Literal["failed_in_output", "in_error_file", "missing", "duplicate", "foreign", "throttled"]
BatchFault = Literal["invalid", "invalid_line", "expire", "cancel", "lose_reply", "fail_create"]
"""``invalid``: refused as a whole. ``invalid_line``: refused, naming its first line. ``expire``, ``cancel``: ends
with half of its lines done. ``lose_reply``: made, but the connection is closed. ``fail_create``: a 500, and not made."""
_LIVE_URL = "/v1/chat/completions"
_TEST_URL = "/v1/chat/ds-test"
_WINDOW = re.compile(r"(\d+)([hd])")


@dataclass(slots=True)
class Batch:
    """One batch as the service keeps it."""

    id: str
    input_file_id: str
    endpoint: str
    window: str
    metadata: Mapping[str, str]
    lines: list[Body]
    fault: BatchFault | None
    created: int
    status: str = "validating"
    polled: int = 0
    output: str | None = None
    errors: str | None = None
    problems: list[Body] = field(default_factory=list)
    completed: int = 0

    def shown(self) -> Body:
        """The object that describes it. ``failed`` stays 0, as it was seen to."""
        ended = {f"{self.status}_at": self.created} if self.status in ("completed", "failed", "expired") else {}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "errors": {"object": "list", "data": self.problems} if self.problems else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.window,
            "status": self.status,
            "output_file_id": self.output,
            "error_file_id": self.errors,
            "created_at": self.created,
            "metadata": dict(self.metadata),
            "request_counts": {"total": len(self.lines), "completed": self.completed, "failed": 0},
            **ended,
        }


Answerer = Callable[[Body], tuple[int, Body]]


@dataclass(slots=True)
class Batches:
    """All batches of the one account."""

    files: Files
    answer: Answerer
    """A chat body -> status and body of its reply."""
    polls: int = 2
    """Looks until a batch has ended."""
    faults: list[BatchFault | None] = field(default_factory=list)
    """One for each batch in turn; none when the list is used up."""
    line_faults: Mapping[LineFault, float] = field(default_factory=dict)
    """Shares of the lines, drawn with a fixed seed."""
    most_lines: int = 50_000
    kept: dict[str, Batch] = field(default_factory=dict)
    asked: Counter[bytes] = field(default_factory=Counter)
    """How often each body was run in a batch."""
    run: Counter[str] = field(default_factory=Counter)
    """How often each ``custom_id`` was run."""
    _chance: random.Random = field(default_factory=lambda: random.Random(5))

    def reply(self, method: str, path: str, query: dict[str, list[str]], raw: bytes) -> bytes | None:
        """The whole HTTP reply; None: close the connection without one."""
        name, _, rest = path.partition("/batches")[2].strip("/").partition("/")
        if method == "POST" and not name:
            return self._create(orjson.loads(raw))
        if method == "GET" and not name:
            return self._list(query)
        batch = self.kept.get(name)
        if batch is None:
            return _refused("Batch not found.", status=404)
        if method == "POST" and rest == "cancel":
            if batch.status in ("validating", "in_progress"):
                batch.status = "cancelling"
                batch.fault = "cancel"
            return http(200, orjson.dumps(batch.shown()))
        if method == "GET" and not rest:
            self._look(batch)
            return http(200, orjson.dumps(batch.shown()))
        return _refused("no such page", status=404)

    def _create(self, body: Body) -> bytes | None:
        stored = self.files.kept.get(str(body.get("input_file_id")))
        found = _WINDOW.fullmatch(str(body.get("completion_window")))
        if stored is None or stored.purpose != "batch":
            return _refused("input_file_id is not a batch file")
        if not found or not 24 <= int(found[1]) * (24 if found[2] == "d" else 1) <= 336:
            return _refused("completion_window must be from 24h to 336h")
        if body.get("endpoint") not in (_LIVE_URL, _TEST_URL):
            return _refused("endpoint is not supported")
        if len((body.get("metadata") or {}).get("ds_name", "")) > 100:
            return _refused("ds_name is too long")
        fault = self.faults.pop(0) if self.faults else None
        if fault == "fail_create":
            return http(500, b'{"error":{"message":"try again","code":"internal_error"}}')
        lines = [orjson.loads(line) for line in stored.data.splitlines() if line]
        batch = Batch(
            f"batch_{len(self.kept) + 1:06}", stored.id, body["endpoint"], body["completion_window"],
            body.get("metadata") or {}, lines, fault, int(time.time()),
        )  # fmt: skip
        self.kept[batch.id] = batch
        return None if fault == "lose_reply" else http(200, orjson.dumps(batch.shown()))

    def _list(self, query: dict[str, list[str]]) -> bytes:
        rows = list(reversed(self.kept.values()))
        if wanted := query.get("ds_name"):
            rows = [one for one in rows if one.metadata.get("ds_name") == wanted[0]]
        if wanted := query.get("status"):
            rows = [one for one in rows if one.status in wanted]
        after = query.get("after", [""])[0]
        rows = rows[next((at + 1 for at, one in enumerate(rows) if one.id == after), 0) :]
        limit = int(query.get("limit", ["20"])[0])
        shown = [one.shown() for one in rows[:limit]]
        return http(200, orjson.dumps({"object": "list", "data": shown, "has_more": len(rows) > limit}))

    def _look(self, batch: Batch) -> None:
        if batch.status in ("completed", "failed", "expired", "cancelled"):
            return
        batch.polled += 1
        if batch.status == "validating":
            batch.problems = self._problems(batch)
            batch.status = "failed" if batch.problems else "in_progress"
            if batch.problems:
                return
        if batch.polled >= self.polls or batch.status == "cancelling":
            self._finish(batch)

    def _problems(self, batch: Batch) -> list[Body]:
        if batch.fault in ("invalid", "invalid_line"):
            line = 1 if batch.fault == "invalid_line" else None
            return [{"code": "invalid_request", "message": "The request is not valid.", "line": line}]
        if len(batch.lines) > self.most_lines:
            return [{"code": "too_many_tasks", "message": "The number of requests exceeds the limit.", "line": None}]
        seen: set[str] = set()
        settings = set()
        for number, line in enumerate(batch.lines, start=1):
            if line["custom_id"] in seen:
                return [{"code": "duplicate_custom_id", "message": "custom_id is used twice", "line": number}]
            seen.add(line["custom_id"])
            if line["url"] != batch.endpoint or line["method"] != "POST":
                return [{"code": "mismatched_url", "message": "url is not the endpoint", "line": number}]
            body = line["body"]
            settings.add((body.get("model"), body.get("enable_thinking"), body.get("thinking_budget")))
            if len(settings) > 1:
                return [{"code": "mismatched_model", "message": "one model and thinking setting", "line": number}]
        return []

    def _finish(self, batch: Batch) -> None:
        partly = batch.fault in ("expire", "cancel")
        output, errors = [], []
        for number, line in enumerate(batch.lines):
            if partly and number >= len(batch.lines) // 2:
                continue
            self.run[line["custom_id"]] += 1
            self.asked[orjson.dumps(line["body"])] += 1
            fault = self._draw()
            status, body = self.answer(line["body"])
            if fault in ("failed_in_output", "in_error_file"):
                status, body = 500, {"error": {"code": "internal_error", "message": "An internal error occurred."}}
            elif fault == "throttled":
                status, body = 429, {"error": {"code": "limit_burst_rate", "message": "Too many requests."}}
            response = {"status_code": status, "request_id": f"r{number}", "body": body}
            one = {"id": f"l{number}", "custom_id": line["custom_id"], "response": response, "error": None}
            if fault == "in_error_file":
                error = {"error_code": "InternalError", "error_message": "An internal error occurred."}
                errors.append({**one, "response": None, "error": error})
            elif fault != "missing":
                output.append(one)
            if fault == "duplicate":
                output.append(one)
            elif fault == "foreign":
                output.append({**one, "custom_id": f"other-{number}"})
        self._chance.shuffle(output)
        batch.completed = len(output)
        batch.output = self._store("output", output) if output else None
        batch.errors = self._store("error", errors) if errors else None
        batch.status = {"expire": "expired", "cancel": "cancelled"}.get(batch.fault or "", "completed")

    def _draw(self) -> LineFault | None:
        point = self._chance.random()
        for name, share in self.line_faults.items():
            point -= share
            if point < 0:
                return name
        return None

    def _store(self, kind: str, rows: list[dict[str, Any]]) -> str:
        data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        return self.files.put(f"{kind}.jsonl", data, purpose="batch_output").id


def _refused(message: str, *, status: int = 400) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "InvalidParameter"}
    return http(status, orjson.dumps({"error": error, "request_id": "fake"}))
