"""The files API: upload, list, retrieve, content, delete; kept in memory."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

import orjson

from tests.fakes.asked import Body
from tests.fakes.sse import http

_PURPOSES = ("batch", "file-extract", "fine-tune")
_MOST_BYTES = {"batch": 500 * 1024 * 1024, "file-extract": 150 * 1024 * 1024, "fine-tune": 300 * 1024 * 1024}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One uploaded file."""

    id: str
    name: str
    purpose: str
    data: bytes
    created: int

    def shown(self) -> Body:
        """The object that describes it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(slots=True)
class Files:
    """All files of the one account. A missing file is a 400, as at the real service."""

    kept: dict[str, StoredFile] = field(default_factory=dict)
    most: int = 10_000
    _made: int = 0

    def put(self, name: str, data: bytes, *, purpose: str) -> StoredFile:
        """Keep a file that the service itself made or was given."""
        self._made += 1
        kind = "batch" if purpose.startswith("batch") else "fe"
        stored = StoredFile(f"file-{kind}-{self._made:06}", name, purpose, data, int(time.time()))
        self.kept[stored.id] = stored
        return stored

    def reply(self, method: str, path: str, query: dict[str, list[str]], headers: dict[str, str], raw: bytes) -> bytes:
        """The whole HTTP reply to one request."""
        name, _, rest = path.partition("/files")[2].strip("/").partition("/")
        if method == "POST" and not name:
            return self._upload(headers, raw)
        if method == "GET" and not name:
            return self._list(query)
        if name not in self.kept:
            return _refused("File not found.")
        if method == "DELETE":
            del self.kept[name]
            return http(200, orjson.dumps({"id": name, "object": "file", "deleted": True}))
        if method == "GET" and rest == "content":
            return http(200, self.kept[name].data, content_type="application/octet-stream")
        if method == "GET" and not rest:
            return http(200, orjson.dumps(self.kept[name].shown()))
        return http(404, b'{"error":{"message":"no such page","code":"NotFound"}}')

    def _upload(self, headers: dict[str, str], raw: bytes) -> bytes:
        fields = _multipart(headers.get("content-type", ""), raw)
        purpose = fields.get("purpose", ("", b""))[1].decode()
        if "file" not in fields:
            return _refused("file is required")
        if purpose not in _PURPOSES:
            return _refused(f"purpose must be one of {', '.join(_PURPOSES)}")
        name, data = fields["file"]
        if len(data) > _MOST_BYTES[purpose]:
            return _refused(f"File size exceeds the limit of {_MOST_BYTES[purpose]} bytes.")
        if len(self.kept) >= self.most:
            return _refused(f"The number of files exceeds the limit of {self.most}.")
        return http(200, orjson.dumps(self.put(name, data, purpose=purpose).shown()))

    def _list(self, query: dict[str, list[str]]) -> bytes:
        rows = [one for one in self.kept.values() if one.purpose in query.get("purpose", [one.purpose])]
        after = query.get("after", [""])[0]
        rows = rows[next((at + 1 for at, one in enumerate(rows) if one.id == after), 0) :]
        limit = int(query.get("limit", ["2000"])[0])
        shown = [one.shown() for one in rows[:limit]]
        body = {"object": "list", "data": shown, "has_more": len(rows) > limit}
        return http(200, orjson.dumps(body))


def _refused(message: str) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": "InvalidParameter"}
    return http(400, orjson.dumps({"error": error, "request_id": "fake"}))


def _multipart(content_type: str, raw: bytes) -> dict[str, tuple[str, bytes]]:
    """name -> (file name, bytes) of a multipart form."""
    boundary = re.search(r'boundary="?([^";]+)', content_type)
    found: dict[str, tuple[str, bytes]] = {}
    for part in (b"\r\n" + raw).split(b"\r\n--" + boundary[1].encode())[1:-1] if boundary else ():
        head, _, data = part.partition(b"\r\n\r\n")
        words = head.decode("utf-8", "replace")
        name = re.search(r'[; ]name="([^"]*)"', words)
        file_name = re.search(r'filename="([^"]*)"', words)
        if name:
            found[name[1]] = (file_name[1] if file_name else "", data)
    return found
