"""What a browser says of the pages that it shows."""

from __future__ import annotations

from playwright.sync_api import ConsoleMessage, Page


def complaints_of(page: Page) -> list[str]:
    """Filled from now on: violations of the policy, failed loads, unknown features, errors."""
    found: list[str] = []

    def told(line: ConsoleMessage) -> None:
        # A picture opened directly has no icon.
        if line.type in ("error", "warning") and not line.location["url"].endswith("/favicon.ico"):
            found.append(f"{page.url}: {line.text}")

    page.on("console", told)
    page.on("pageerror", lambda error: found.append(f"{page.url}: {error}"))
    page.add_init_script(
        "addEventListener('securitypolicyviolation',"
        " (e) => console.error(`${e.violatedDirective} forbids ${e.blockedURI} ${e.sample}`))"
    )
    return found
