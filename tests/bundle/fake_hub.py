"""A fake Hub on this machine with the protocol of the real client.

Repositories, preupload, LFS batch, upload and verify, and one commit of everything, as
https://huggingface.co/docs/hub/api and huggingface_hub's own source describe them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_good"
FIRST = "0" * 40
LARGE = (".onnx", ".safetensors")


@dataclass
class Repository:
    """What a repository holds: files by path, and its commits, newest last."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)


@dataclass
class Hub:
    """The state of the hub.

    Args:
        failing: the status to answer with, by the end of a path.
    """

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    concurrent_commit: bool = False  # somebody else commits after a repository is read


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Routes to the functions below."""

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            hub.requests.append(f"{self.command} {path}")
            hub.tokens.add(self.headers.get("Authorization", ""))
            status, content = self.result(path, body)
            sent = json.dumps(content).encode()
            self.send_response(status)
            if status >= 400:
                self.send_header("X-Error-Message", str(content.get("error", "")))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def result(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
            for end, status in hub.failing.items():
                if path.endswith(end):
                    message = f"made to fail: {end}"
                    return status, {"error": message, "errors": [{"message": message}]}
            if path.startswith("/store/"):  # presigned, as the real one's: no token needed
                return _store(hub, path, body)
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                return 401, {"error": "Invalid user token."}
            return _route(hub, self.command, path, body)

        def log_message(self, *_: Any) -> None:
            return

    return Handler


def _route(hub: Hub, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    if path == "/api/repos/create":
        return _create(hub, json.loads(body))
    if path == "/api/repos/delete":
        asked = json.loads(body)
        del hub.repositories[f"{asked['organization']}/{asked['name']}"]
        return 200, {}
    if path == "/api/validate-yaml":
        return 200, _validated(json.loads(body)["content"])
    found = re.match(r"^/(?:api/models/)?([\w.-]+/[\w.-]+?)(?:\.git)?(/.*)?$", path)
    if found is None or found[1] not in hub.repositories:
        return 404, {"error": "Repository not found"}
    name, rest = found[1], found[2] or ""
    repository = hub.repositories[name]
    if method == "GET":
        siblings = [{"rfilename": file} for file in repository.files]
        sha = repository.commits[-1]
        if hub.concurrent_commit:
            repository.commits.append("f" * 40)
        return 200, {"id": name, "sha": sha, "private": repository.private, "siblings": siblings}
    if rest == "/preupload/main":
        return 200, {"files": [_mode(file) for file in json.loads(body)["files"]]}
    if rest == "/info/lfs/objects/batch":
        return 200, _batch(hub, json.loads(body))
    if rest == "/commit/main":
        return _commit(hub, name, [json.loads(line) for line in body.splitlines()])
    return 404, {"error": f"unknown path {path}"}


def _create(hub: Hub, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    name = f"{asked['organization']}/{asked['name']}"
    if name in hub.repositories:
        return 409, {"error": "You already created this model repo", "url": f"{hub.address}/{name}"}
    if asked["organization"] == "foreign":
        return 403, {"error": "You don't have the rights to create a model under this namespace"}
    hub.repositories[name] = Repository(
        bool(asked.get("private")), {".gitattributes": b""}, [FIRST]
    )
    return 200, {"url": f"{hub.address}/{name}", "name": name}


def _validated(content: str) -> dict[str, Any]:
    metadata = yaml.safe_load(content.split("---")[1])
    errors = [] if metadata["pipeline_tag"] == "text-classification" else [{"message": "no task"}]
    return {"errors": errors, "warnings": []}


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if file["path"].endswith(LARGE) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}


def _batch(hub: Hub, asked: dict[str, Any]) -> dict[str, Any]:
    objects = []
    for wanted in asked["objects"]:
        href = f"{hub.address}/store/{wanted['oid']}"
        actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
        objects.append({**wanted, "authenticated": True, "actions": actions})
    return {"transfer": "basic", "objects": objects}


def _store(hub: Hub, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    identity = path.split("/")[2]
    if path.endswith("/verify"):
        return (200, {}) if identity in hub.objects else (404, {"error": "no such object"})
    if hashlib.sha256(body).hexdigest() != identity:
        return 400, {"error": "another content"}
    hub.objects[identity] = body
    return 200, {}


def _commit(hub: Hub, name: str, lines: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    repository = hub.repositories[name]
    header = lines[0]["value"]
    if header.get("parentCommit") not in (None, repository.commits[-1]):
        return 412, {"error": "A commit has happened since"}
    files = dict(repository.files)
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            if value["oid"] not in hub.objects:
                return 400, {"error": f"{value['path']} was not uploaded"}
            files[value["path"]] = hub.objects[value["oid"]]
        elif line["key"] == "deletedFile":
            del files[value["path"]]
    repository.files = files
    repository.commits.append(f"{len(repository.commits):040x}")
    sha = repository.commits[-1]
    url = f"{hub.address}/{name}/commit/{sha}"
    return 200, {"success": True, "commitOid": sha, "commitUrl": url}
