"""A page in a browser, with screenshots, accessibility checks and what failed."""

import base64
import re
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Page

TYPES = {".png": "image/png", ".webp": "image/webp"}
_DROP = """async ([data, name, type]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
  }
}"""


class Walk:
    """A page, its screenshots, and what failed."""

    def __init__(self, page: Page, address: str, out: Path, axe: str) -> None:
        self.page, self.address, self.out, self.axe = page, address, out, axe
        self.failures: list[str] = []
        host = urlsplit(address).netloc
        page.on("console", lambda message: self._console(message.type, message.text))
        page.on("pageerror", lambda error: self.failures.append(f"script: {error}"))
        page.on("request", lambda request: self._request(request.url, host))
        page.on("dialog", lambda dialog: self.failures.append(f"a text ran as a script: {dialog.message}"))

    def open(self, parameters: str = "") -> None:
        """Opens the page and waits for results."""
        self.page.goto(f"{self.address}/{parameters}")
        self.wait("document.querySelectorAll('#results li').length > 0")

    def drop(self, data: bytes, name: str) -> None:
        """Drops a file on the page."""
        kind = TYPES.get(Path(name).suffix, "image/jpeg")
        self.page.evaluate(_DROP, [base64.b64encode(data).decode(), name, kind])

    def check(self, condition: object, what: str) -> None:
        """Records a failure if the condition is false."""
        if not condition:
            self.failures.append(what)

    def picture(self, name: str) -> None:
        """Saves a screenshot, and checks accessibility."""
        self.page.wait_for_timeout(250)
        self.page.screenshot(path=str(self.out / f"{name}.png"))
        if not self.axe:
            return
        self.page.evaluate(self.axe)  # not as a script element, which the security policy bars
        for found in self.page.evaluate("async () => (await axe.run()).violations"):
            if found["impact"] in ("serious", "critical"):
                nodes = "; ".join(node["html"][:120] for node in found["nodes"][:3])
                self.failures.append(f"{name}: axe {found['id']} ({found['impact']}): {nodes}")

    def status(self) -> str:
        """The line above the results."""
        return self.page.locator("#status").inner_text()

    def total(self) -> int:
        """How many products the page states."""
        return int(re.sub(r"\D", "", self.status().partition(".")[0]) or 0)

    def wait(self, condition: str) -> None:
        """Waits until a JavaScript expression is true."""
        for _ in range(200):  # wait_for_function needs eval, which the security policy bars
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(100)
        raise TimeoutError(f"not within 20 s: {condition}")

    def ranks(self, side: int) -> list[str]:
        """The line of ranks of each result in one of two columns."""
        return self.page.locator(".column").nth(side).locator(".rank").all_inner_texts()

    def titles(self) -> list[str]:
        """The titles of the results."""
        return self.page.locator("#grid h3").all_inner_texts()

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            self.failures.append(f"console: {text}")

    def _request(self, url: str, host: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.netloc != host:
            self.failures.append(f"request to another host: {url}")
