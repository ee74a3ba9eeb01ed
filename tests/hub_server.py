"""A Hugging Face Hub on this machine: as much of its protocol as huggingface_hub needs to download.

    with HubServer() as hub:
        hub.add("owner/name", {"config.json": b"{}", "model.safetensors": Path("some/file")})
        ...  # with HF_ENDPOINT=hub.url, which huggingface_hub reads when it is imported

`use_hub` sets that. `python tests/hub_server.py FOLDER` serves each FOLDER/OWNER/NAME until it is
interrupted, and prints its address. What the real hub answers was read from the source of huggingface_hub.
"""

import contextlib
import hashlib
import json
import socket
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".gguf", ".pth", ".bin", "tokenizer.json", ".model")  # kept by Git LFS, sent by a CDN
TOKEN = "hf_agoodtoken"


@dataclass
class Model:
    """A repository at each of its revisions, which are branches, tags and commits."""

    files: dict[str, dict[str, bytes | Path]] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)  # by branch or tag
    gated: bool = False
    private: bool = False
    gguf: dict[str, Any] | None = None


class HubServer:
    """A server in a thread of its own, on a free port of this machine.

    `requests` has the method, path, status and headers of every request. Who sends a token of `tokens` is known,
    and who sends one of `granted` may read gated models. A file name in `cut` or `stalled` is sent up to that
    byte, from whichever byte on it is asked for: then the connection is closed, or stands still until `release`.
    `status` is the answer to everything, if it is set, and `refused` has it by the name of a file.
    """

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.requests: list[tuple[str, str, int, dict[str, str]]] = []
        self.tokens, self.granted = {TOKEN}, {TOKEN}
        self.cut: dict[str, int] = {}
        self.stalled: dict[str, int] = {}
        self.status: int | None = None
        self.refused: dict[str, int] = {}
        self.is_stalled, self._released = threading.Event(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Bound", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}"  # another host, as large files are sent by one

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: dict[str, bytes | Path], branch: str = "main", **settings) -> str:
        """Put a version of a model on the hub, at the end of a branch; the result is its commit."""
        model = self.models.setdefault(name, Model())
        for setting, value in settings.items():
            setattr(model, setting, value)
        listed = "".join(f"{file} {digest(content, 'sha1')}\n" for file, content in sorted(files.items()))
        commit = hashlib.sha1(f"{name}\n{listed}".encode()).hexdigest()
        model.files[commit], model.commits[branch] = files, commit
        return commit

    def add_folder(self, name: str, folder: Path, **settings) -> str:
        """The same, of all files in a folder."""
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        return self.add(name, files, **settings)

    def release(self) -> None:
        """Let what stands still go on."""
        self.stalled.clear()
        self._released.set()

    def sent(self, file: str, method: str = "GET") -> int:
        """How often some of the content of a file was sent."""
        asked = [path for how, path, status, _ in self.requests if how == method and status in (200, 206)]
        return sum(path.endswith(f"/{file}") for path in asked)


def use_hub(url: str, folder: Path, monkeypatch: Any) -> None:
    """Let huggingface_hub, here and in processes started from now on, ask this hub; its cache is in `folder`.

    Nobody is logged in, and nothing is in the cache.
    """
    from huggingface_hub import constants

    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    settings = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1"}
    for variable, value in (settings | {"HF_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub")}).items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.hub.status is not None:
            self.answer(self.hub.status)
        elif parts[:2] == ["api", "models"] and len(parts) >= 4:
            self.describe("/".join(parts[2:4]), parts[4:])
        elif parts[0] == "cdn":
            self.send_file("/".join(parts[1:3]), parts[3], "/".join(parts[4:]), [])
        elif len(parts) > 4 and parts[2] == "resolve":
            self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self.answer(404, error="Not Found")

    def describe(self, name: str, rest: list[str]) -> None:
        """The files of a model, as /api/models gives them; it shows those of gated models, too."""
        revision = rest[1] if len(rest) > 1 else "main"
        commit = self.commit_of(name, revision)
        if commit is None:
            return
        model = self.hub.models[name]
        files = [_described(file, content) for file, content in model.files[commit].items()]
        if rest[:1] == ["tree"]:
            listed = [{"type": "file", "path": f["rfilename"], "oid": f["blobId"], **f} for f in files]
            self.answer(200, json.dumps(listed).encode())
            return
        about = {"id": name, "sha": commit, "gated": "manual" if model.gated else False, "private": model.private}
        about |= {"siblings": files} | ({"gguf": model.gguf} if model.gguf else {})
        self.answer(200, json.dumps(about).encode())

    def resolve(self, name: str, revision: str, file: str) -> None:
        """A small file at once; a large one by way of another host, which sees no token."""
        commit = self.commit_of(name, revision)
        if commit is None or not self.may_read(name):
            return
        content = self.hub.models[name].files[commit].get(file)
        if file in self.hub.refused:
            self.answer(self.hub.refused[file])
            return
        headers = [("X-Repo-Commit", commit)]
        if content is None:
            self.answer(404, error="Entry not found", code="EntryNotFound", headers=headers)
        elif file.endswith(LARGE):
            linked = [("X-Linked-Etag", f'"{digest(content)}"'), ("X-Linked-Size", str(_length(content)))]
            to = ("Location", f"{self.hub.cdn}/cdn/{name}/{commit}/{file}")
            self.answer(302, headers=[*headers, *linked, to])
        else:
            self.send_file(name, commit, file, [*headers, ("ETag", f'"{_git_id(content)}"')])

    def commit_of(self, name: str, revision: str) -> str | None:
        """The commit of a revision; where there is none, or no such model, the hub's answer is sent."""
        model, token = self.hub.models.get(name), self.token()
        if token is not None and token not in self.hub.tokens:
            self.answer(401, error="Invalid credentials in Authorization header")
        elif model is None or (model.private and token is None):
            if token is None:
                self.answer(401, error="Invalid username or password.")
            else:
                self.answer(404, error="Repository not found", code="RepoNotFound")
        else:
            commit = model.commits.get(revision, revision)
            if commit in model.files:
                return commit
            self.answer(404, error=f"Invalid rev id: {revision}", code="RevisionNotFound")
        return None

    def may_read(self, name: str) -> bool:
        gated, token = self.hub.models[name].gated, self.token()
        if gated and token not in self.hub.granted:
            said = f"Access to model {name} is restricted."
            self.answer(401 if token is None else 403, error=said, code="GatedRepo")
            return False
        return True

    def token(self) -> str | None:
        sent = self.headers.get("Authorization")
        return None if sent is None else sent.removeprefix("Bearer ")

    def send_file(self, name: str, commit: str, file: str, headers: list[tuple[str, str]]) -> None:
        content = self.hub.models[name].files[commit][file]
        data = content.read_bytes() if isinstance(content, Path) else content
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if asked:
            headers = [*headers, ("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")]
        self.answer(206 if asked else 200, data[start:], headers=headers, file=file, start=start)

    def answer(
        self,
        status: int,
        body: bytes = b"",
        error: str | None = None,
        code: str | None = None,
        headers: list[tuple[str, str]] = [],  # noqa: B006
        file: str = "",
        start: int = 0,
    ) -> None:
        self.hub.requests.append(
            (
                self.command,
                urlsplit(self.path).path,
                status,
                {key.title(): value for key, value in self.headers.items()},
            )
        )
        self.send_response(status)
        errors = [("X-Error-Message", error), ("X-Error-Code", code)]
        for key, value in (*headers, *errors, ("Content-Length", str(len(body)))):
            if value is not None:
                self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.send_body(body, file, start)

    def send_body(self, body: bytes, file: str, start: int) -> None:
        if file in self.hub.stalled:
            stop = max(0, self.hub.stalled[file] - start)
            self.wfile.write(body[:stop])
            self.hub.is_stalled.set()
            self.hub._released.wait(60)
            body = body[stop:]
        if file not in self.hub.cut:
            self.wfile.write(body)
            return
        self.wfile.write(body[: max(0, self.hub.cut[file] - start)])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error: `requests` has it all."""


def digest(content: bytes | Path, kind: str = "sha256") -> str:
    """Of the content of a file, as Git LFS names it."""
    return hashlib.new(kind, content.read_bytes() if isinstance(content, Path) else content).hexdigest()


def _length(content: bytes | Path) -> int:
    return content.stat().st_size if isinstance(content, Path) else len(content)


def _git_id(content: bytes | Path) -> str:
    data = content.read_bytes() if isinstance(content, Path) else content
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _described(file: str, content: bytes | Path) -> dict[str, Any]:
    found = {"rfilename": file, "size": _length(content), "blobId": _git_id(content)}
    if file.endswith(LARGE):
        found["lfs"] = {"sha256": digest(content), "size": _length(content), "pointerSize": 134}
        found["lfs"]["oid"] = found["lfs"]["sha256"]
    return found


def main() -> None:
    """Serve a folder of models until the process is interrupted."""
    folder = Path(sys.argv[1])
    with HubServer() as hub:
        for place in sorted(folder.glob("*/*/")):
            hub.add_folder(place.relative_to(folder).as_posix(), place)
        print(hub.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
