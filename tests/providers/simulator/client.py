"""A simulator process and a hand-written client of it, for tests that must not trust the adapters."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import requests

ROOT = Path(__file__).resolve().parents[3]


def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A simulator on a free port, and its address."""
    command = [sys.executable, "-m", "providers.simulator", "--port", "0", "--exit-with-stdin", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert "listening on" in line
    return process, line.split()[-1]


class RunwayClient:
    """A hand-written client with a key of its own, so that lanes and counters of tests do not mix."""

    def __init__(self, base: str, key: str | None = None) -> None:
        self.base = base
        self.key = key or f"key-{uuid.uuid4()}"
        self.http = requests.Session()
        self.http.trust_env = False
        self.headers = {"Authorization": f"Bearer {self.key}", "X-Runway-Version": "2024-11-06"}

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.http.request(method, self.base + path, **{"headers": self.headers, "timeout": 20, **more})

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
        for _ in range(400):
            view = self.view(job_id)
            if view["status"] in statuses:
                return view
            time.sleep(0.02)
        raise AssertionError(f"still {view}")

    def link(self, prompt: str, **body: Any) -> str:
        return str(self.wait(self.job(prompt, **body), "SUCCEEDED")["output"][0])

    def download(self, url: str, **more: Any) -> requests.Response:
        return self.http.get(url, **{"timeout": 20, **more})

    def sim(self, path: str, **body: Any) -> dict[str, Any]:
        method = "POST" if body or path.startswith(("reset", "jobs/")) else "GET"
        reply = self.http.request(method, f"{self.base}/_sim/{path}", json=body or None, timeout=20)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    def submits(self, prompt: str) -> dict[str, int]:
        return dict(self.http.get(f"{self.base}/_sim/submits", params={"prompt": prompt}, timeout=20).json())
