"""The provider's files and batches on loopback, lean enough for a million lines: everything lies on disk.

A batch is answered when it is made and has ended when it is looked at first. Line by line the answer is found by the
same regular expression as in ``benchmarks.loopback``.
Run: ``python -m benchmarks.batch_service FOLDER`` prints its port.
"""

from __future__ import annotations

import asyncio
import sys
from itertools import count
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from benchmarks.loopback import chat_answer

_ID = b'"custom_id":"'


class Service:
    """Files by id on disk, batches by id in memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, dict[str, Any]] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._numbers = count(1)

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(
            [
                web.post("/v1/files", self.upload),
                web.get("/v1/files", self.files),
                web.get("/v1/files/{id}/content", self.content),
                web.delete("/v1/files/{id}", self.delete),
                web.post("/v1/batches", self.create),
                web.get("/v1/batches", self.batches),
                web.get("/v1/batches/{id}", self.batch),
            ]
        )
        return app

    async def upload(self, request: web.Request) -> web.Response:
        """Keep the part named ``file``."""
        name, file = "", self._new()
        async for part in await request.multipart():
            if part.name == "file":
                name = part.filename or ""
                with self._path(file).open("wb") as out:
                    while piece := await part.read_chunk(1 << 20):
                        out.write(piece)
        size = self._path(file).stat().st_size
        self._files[file] = {
            "id": file, "object": "file", "bytes": size, "created_at": 1, "filename": name, "purpose": "batch",
            "status": "processed",
        }  # fmt: skip
        return web.json_response(self._files[file])

    async def files(self, _: web.Request) -> web.Response:
        """All files."""
        return web.json_response({"object": "list", "data": list(self._files.values()), "has_more": False})

    async def content(self, request: web.Request) -> web.FileResponse:
        """A file's bytes."""
        return web.FileResponse(self._path(request.match_info["id"]))

    async def delete(self, request: web.Request) -> web.Response:
        """Forget a file."""
        file = request.match_info["id"]
        self._files.pop(file, None)
        self._path(file).unlink(missing_ok=True)
        return web.json_response({"id": file, "object": "file", "deleted": True})

    async def create(self, request: web.Request) -> web.Response:
        """Answer every line of the file."""
        asked = orjson.loads(await request.read())
        output = self._new()
        lines = await asyncio.to_thread(self._answer, asked["input_file_id"], output)
        batch = {
            "id": f"batch_{output}", "object": "batch", "endpoint": asked["endpoint"], "status": "validating",
            "input_file_id": asked["input_file_id"], "completion_window": asked["completion_window"],
            "output_file_id": None, "error_file_id": None, "created_at": 1, "metadata": asked.get("metadata") or {},
            "request_counts": {"total": lines, "completed": 0, "failed": 0},
        }  # fmt: skip
        self._batches[batch["id"]] = {**batch, "output": output}
        return web.json_response(batch)

    async def batches(self, _: web.Request) -> web.Response:
        """All batches."""
        shown = [{key: value for key, value in one.items() if key != "output"} for one in self._batches.values()]
        return web.json_response({"object": "list", "data": shown, "has_more": False})

    async def batch(self, request: web.Request) -> web.Response:
        """One batch, which has ended by now."""
        batch = self._batches[request.match_info["id"]]
        lines = batch["request_counts"]["total"]
        batch |= {"status": "completed", "output_file_id": batch["output"]}
        batch["request_counts"] = {"total": lines, "completed": lines, "failed": 0}
        return web.json_response({key: value for key, value in batch.items() if key != "output"})

    def _answer(self, file: str, output: str) -> int:
        lines = 0
        with self._path(file).open("rb") as asked, self._path(output).open("wb") as out:
            for lines, line in enumerate(asked, start=1):  # noqa: B007
                start = line.index(_ID) + len(_ID)
                custom = line[start : line.index(b'"', start)]
                out.write(
                    b'{"id":"l","custom_id":"%b","response":{"status_code":200,"request_id":"r","body":%b},"error":null}\n'
                    % (custom, chat_answer(line))
                )
        return lines

    def _new(self) -> str:
        return f"file-{next(self._numbers):06}"

    def _path(self, file: str) -> Path:
        return self._folder / file


async def serve(folder: Path) -> None:
    """Serve until stopped."""
    runner = web.AppRunner(Service(folder).app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
