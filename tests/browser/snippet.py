"""The front end's own code, word for word, and a way to run it in a page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import ConsoleMessage, Page

SNIPPET = """
const response = await fetch('/api/video/create', {
  method: 'POST',
  headers: { 'Content-Type': 'application/json' },
  credentials: 'include',
  body: JSON.stringify({ prompt: 'A beautiful sunset over the ocean', duration: 5, aspectRatio: '16:9' }),
})
const { data } = await response.json()
const taskId = data.taskId
const pollStatus = async () => {
  const statusResponse = await fetch(`/api/video/status?taskId=${taskId}`, { credentials: 'include' })
  const statusData = await statusResponse.json()
  if (statusData.data.status === 'success') console.log('Video ready:', statusData.data.result.videoUrl)
  else if (statusData.data.status === 'failed') console.error('Video generation failed:', statusData.data.error)
  else setTimeout(pollStatus, 5000)
}
pollStatus()
"""
READY, FAILED = "Video ready: ", "Video generation failed: "


def log_in(page: Page, base_url: str, username: str, password: str) -> None:
    """Open the front page and log in from there, as a front end would."""
    page.goto(base_url + "/")
    status = page.evaluate(
        """async (body) => (await fetch('/api/auth/login', {
            method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)
        })).status""",
        {"username": username, "password": password},
    )
    assert status == 200, f"the login answered {status}"


def run_snippet(
    page: Page,
    base_url: str,
    *,
    timeout_s: float = 60,
    created: Callable[[dict[str, Any]], None] = lambda answer: None,
) -> str:
    """Run the snippet in a page of ours that is logged in, and return the line that it prints at the end.

    `created` is called with the answer to the create, while the snippet polls on.
    """
    if not page.url.startswith(base_url):
        page.goto(base_url + "/")

    def is_the_end(message: ConsoleMessage) -> bool:
        return message.text.startswith((READY, FAILED))

    with page.expect_console_message(is_the_end, timeout=timeout_s * 1000) as end:
        with page.expect_response("**/api/video/create") as answer:
            page.evaluate(f"async () => {{ {SNIPPET} }}")
        created(answer.value.json())
    return end.value.text
