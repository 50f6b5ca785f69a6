"""A simulator process and hand-written clients of it, for tests that must not trust the adapters."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import requests

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A simulator on a free port, and its address."""
    command = [sys.executable, "-m", "providers.simulator", "--port", "0", "--exit-with-stdin", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "listening on" in line
    return process, line.split()[-1]


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[str]:
    """The address of a simulator of one's own."""
    process, base = start(*arguments)
    try:
        yield base
    finally:
        process.terminate()
        assert process.wait(60) == 0


class Client:
    """A client with a key of its own, so that lanes and counters of tests do not mix."""

    def __init__(self, base: str, key: str | None = None) -> None:
        self.base = base
        self.key = key or f"key-{uuid.uuid4()}"
        self.http = requests.Session()
        self.http.trust_env = False
        self.headers: dict[str, str] = {}

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        url = path if path.startswith("http") else self.base + path
        return self.http.request(method, url, **{"headers": self.headers, "timeout": 20, **more})

    def download(self, url: str, **more: Any) -> requests.Response:
        return self.http.get(url, **{"timeout": 20, **more})

    def sim(self, path: str, **body: Any) -> dict[str, Any]:
        method = "POST" if body or path.startswith(("reset", "jobs/")) else "GET"
        reply = self.http.request(method, f"{self.base}/_sim/{path}", json=body or None, timeout=20)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def submits(self, prompt: str) -> dict[str, int]:
        return dict(self.http.get(f"{self.base}/_sim/submits", params={"prompt": prompt}, timeout=20).json())

    def deliveries(self, job_id: str, count: int) -> list[dict[str, Any]]:
        """The call-backs of a job as the simulator counts them, once there are so many."""
        return wait_for(lambda: found if len(found := self.sim(f"callbacks?job={job_id}")["sent"]) >= count else None)


class RunwayClient(Client):
    def __init__(self, base: str, key: str | None = None) -> None:
        super().__init__(base, key)
        self.headers = {"Authorization": f"Bearer {self.key}", "X-Runway-Version": "2024-11-06"}

    def create(self, prompt: str, path: str = "/v1/text_to_video", **body: Any) -> requests.Response:
        whole = {"model": "gen4.5", "promptText": prompt, "ratio": "1280:720", "duration": 2} | body
        return self.call("POST", path, json={name: value for name, value in whole.items() if value is not None})

    def job(self, prompt: str, **body: Any) -> str:
        reply = self.create(prompt, **body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["id"])

    def poll(self, job_id: str) -> requests.Response:
        return self.call("GET", f"/v1/tasks/{job_id}")

    def view(self, job_id: str) -> dict[str, Any]:
        reply = self.poll(job_id)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Poll until one of these statuses."""
        for _ in range(3000):
            view = self.view(job_id)
            if view["status"] in statuses:
                return view
            time.sleep(0.02)
        raise AssertionError(f"still {view}")

    def link(self, prompt: str, **body: Any) -> str:
        return str(self.wait(self.job(prompt, **body), "SUCCEEDED")["output"][0])


class PikaClient(Client):
    """Speaks to fal's queue."""

    def __init__(self, base: str, key: str | None = None) -> None:
        super().__init__(base, key)
        self.headers = {"Authorization": f"Key {self.key}"}

    def create(self, prompt: str, path: str = "v2.2/text-to-video", query: str = "", **body: Any) -> requests.Response:
        whole = {"prompt": prompt} | body
        url = f"/fal-ai/pika/{path}{query}"
        return self.call("POST", url, json={name: value for name, value in whole.items() if value is not None})

    def job(self, prompt: str, **body: Any) -> dict[str, Any]:
        reply = self.create(prompt, **body)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def wait(self, job: dict[str, Any]) -> dict[str, Any]:
        """Poll until it is COMPLETED."""
        return wait_for(
            lambda: dict(reply.json()) if (reply := self.call("GET", job["status_url"])).status_code == 200 else None
        )

    def result(self, job: dict[str, Any]) -> requests.Response:
        return self.call("GET", job["response_url"])


class KlingClient(Client):
    """A plain API key, good for both standards."""

    def __init__(self, base: str, key: str | None = None) -> None:
        super().__init__(base, key)
        self.headers = {"Authorization": f"Bearer {self.key}"}

    def older(self, prompt: str, family: str = "text2video", **body: Any) -> requests.Response:
        whole = {"model_name": "kling-v2-5-turbo", "prompt": prompt} | body
        sent = {name: value for name, value in whole.items() if value is not None}
        return self.call("POST", f"/v1/videos/{family}", json=sent)

    def newer(self, prompt: str, path: str = "text-to-video/kling-2.5-turbo", **body: Any) -> requests.Response:
        start: dict[str, Any] = {"prompt": prompt} if path.startswith("text") else {}
        whole = start | body
        return self.call("POST", f"/{path}", json={name: value for name, value in whole.items() if value is not None})

    def tasks(self, **params: str) -> list[dict[str, Any]]:
        reply = self.call("GET", "/tasks", params=params)
        assert reply.status_code == 200, reply.text
        return list(reply.json()["data"])

    def wait_older(self, task_id: str, family: str = "text2video") -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            task = dict(self.call("GET", f"/v1/videos/{family}/{task_id}").json()["data"])
            return task if task["task_status"] in ("succeed", "failed") else None

        return wait_for(ended)

    def wait_newer(self, task_id: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            (task,) = self.tasks(task_ids=task_id)
            return task if task["status"] in ("succeeded", "failed") else None

        return wait_for(ended)


class Receiver:
    """Takes call-backs on loopback and keeps them; answers from `statuses`, then 200."""

    def __init__(self, *statuses: int) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses = list(statuses)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(outer.statuses.pop(0) if outer.statuses else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wait(self, count: int) -> list[dict[str, Any]]:
        """The bodies of the first `count` call-backs."""
        wait_for(lambda: len(self.got) >= count)
        return self.bodies()[:count]

    def bodies(self) -> list[dict[str, Any]]:
        """The bodies of all call-backs until now, the first one first."""
        return [json.loads(body) for _, _, body in self.got]


def wait_for(look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)
    return found
