"""Walks through the page in headless Chromium and makes screenshots of it.

    pip install playwright                      # not in requirements.txt; Chromium of the system: apt install chromium
    python search.py serve INDEX &
    python scripts/screenshots/page.py http://127.0.0.1:8000 OUT --query "red running shoes" --image photo.jpg

Each step is checked; the script ends with 1 and a line for each failure. `--axe FILE` is axe.min.js of the npm package
axe-core: then each state is checked for accessibility, and serious findings are failures. Requests to another host and
messages of the console are failures too.
"""

import argparse
import base64
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Error, Page, Route, sync_playwright

DESKTOP, PHONE = {"width": 1200, "height": 760}, {"width": 390, "height": 844}
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


def main() -> int:
    """Runs all walks; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("address")
    parser.add_argument("out", type=Path)
    parser.add_argument("--query", default="red running shoes")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--axe", type=Path)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    axe = options.axe.read_text(encoding="utf-8") if options.axe else ""
    failures: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])

        @contextlib.contextmanager
        def walk(**context: Any) -> Iterator[Walk]:
            opened: BrowserContext = browser.new_context(**{"locale": "en-US", "viewport": DESKTOP, **context})
            one = Walk(opened.new_page(), options.address.rstrip("/"), options.out, axe)
            yield one
            opened.close()
            failures.extend(one.failures)

        steps: list[tuple[Callable[..., None], dict[str, Any]]] = [
            (search_and_filter, {}),
            (keyboard, {}),
            (similar_and_detail, {}),
            (picture_search, {}),
            (states, {}),
            (phone, {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}),
            (dark, {"color_scheme": "dark"}),
            (chinese, {"locale": "zh-CN"}),
        ]
        for step, context in steps:
            with walk(**context) as one:
                try:
                    step(one, options)
                except Exception as error:
                    one.failures.append(f"{step.__name__}: {str(error).splitlines()[0]}")
                    one.page.screenshot(path=str(options.out / f"failed-{step.__name__}.png"))
        browser.close()
    print("\n".join(failures) or "no failure")
    return int(bool(failures))


def search_and_filter(walk: Walk, options: argparse.Namespace) -> None:
    """Types a query, filters by a facet, goes back, opens the shared address anew."""
    page = walk.page
    page.goto(f"{walk.address}/")
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    page.locator("#q").press_sequentially(options.query[:5], delay=40)
    with contextlib.suppress(Error):
        page.wait_for_selector("#suggestions:not([hidden]) li", timeout=3000)
    walk.picture("suggestions")
    page.locator("#q").press_sequentially(options.query[5:], delay=40)
    walk.wait(f"new URLSearchParams(location.search).get('q') === {options.query!r}")
    page.wait_for_timeout(1200)
    if page.locator("#suggestions").is_visible():
        page.locator("#q").press("Escape")
        walk.check(page.locator("#q").input_value() == options.query, "Escape on the suggestions empties the box")
    page.locator("#q").press("Enter")
    page.wait_for_timeout(800)
    walk.check(walk.titles(), "no results for the query")
    walk.check(page.locator(".weights").count(), "no bar of weights")
    walk.picture("results")
    total, boxes = walk.total(), page.locator("#facets input[type=checkbox]")
    if boxes.count():
        count = int(re.sub(r"\D", "", page.locator("#facets .count").first.inner_text()))
        box_id = boxes.first.get_attribute("id")
        boxes.first.check()
        walk.wait("document.querySelectorAll('.chip').length === 1")
        page.wait_for_timeout(500)
        walk.check(walk.total() == count, f"filtered to {walk.total()}, the facet counted {count}")
        focused = page.evaluate("document.activeElement.id")
        walk.check(focused == box_id, f"the focus went from {box_id} to {focused!r}")
        walk.picture("filtered")
        shared, titles = page.url, walk.titles()
        page.go_back()
        walk.wait("document.querySelectorAll('.chip').length === 0")
        page.wait_for_timeout(500)
        walk.check(walk.total() == total, "going back did not bring the results before")
        page.goto(shared)
        walk.wait("document.querySelectorAll('.chip').length === 1")
        walk.check(walk.titles() == titles, "the shared address shows other results")
    if page.locator("#pages button").count() and page.locator("#pages button").last.is_enabled():
        first = walk.titles()
        page.locator("#pages button").last.click()
        walk.wait("location.search.includes('page=2')")
        page.wait_for_timeout(800)
        walk.check(walk.titles() != first, "the second page has the results of the first")


def keyboard(walk: Walk, options: argparse.Namespace) -> None:
    """Searches, chooses a suggestion, filters and opens a product without a mouse."""
    page = walk.page
    page.goto(f"{walk.address}/")
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    walk.check(page.evaluate("document.activeElement.id") == "q", "the search box has no focus at the start")
    page.keyboard.type(options.query[:5], delay=30)
    with contextlib.suppress(Exception):
        page.wait_for_selector("#suggestions:not([hidden]) li", timeout=5000)
    if page.locator("#suggestions li").count():
        page.keyboard.press("ArrowDown")
        chosen = page.locator("#suggestions li").first.inner_text()
        active = page.locator("#q").get_attribute("aria-activedescendant")
        walk.check(active == "suggestion-0", "the first suggestion is not the active one")
        page.keyboard.press("Enter")
        walk.check(page.locator("#q").input_value() == chosen, "the chosen suggestion is not in the box")
    page.wait_for_timeout(600)
    for _ in range(200):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('h3') !== null"):
            break
    walk.picture("keyboard")
    page.keyboard.press("Enter")
    walk.check(page.locator("dialog[open]").count() == 1, "Enter on a title opens no dialog")
    page.keyboard.press("Escape")
    walk.check(page.locator("dialog[open]").count() == 0, "Escape does not close the dialog")
    walk.check(page.evaluate("document.activeElement.closest('h3') !== null"), "the focus is not back on the title")


def similar_and_detail(walk: Walk, options: argparse.Namespace) -> None:
    """Opens a product and searches for similar ones."""
    page = walk.page
    page.goto(f"{walk.address}/?q={options.query}")
    walk.wait("document.querySelectorAll('#grid h3').length > 0")
    title = walk.titles()[0]
    page.locator("#grid h3 button").first.click()
    walk.check(page.locator("dialog h2").inner_text() == title, "the dialog has another title")
    walk.picture("detail")
    page.locator("dialog button.primary").click()
    walk.wait("location.search.includes('like=')")
    page.wait_for_timeout(800)
    walk.check(title not in walk.titles()[:1], "the product is the most similar to itself")
    walk.picture("similar")


def picture_search(walk: Walk, options: argparse.Namespace) -> None:
    """Drops a picture, adds a text, removes the picture."""
    if options.image is None:
        return
    page = walk.page
    page.goto(f"{walk.address}/")
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    before = walk.titles()
    kinds = {".png": "image/png", ".webp": "image/webp"}
    data = base64.b64encode(options.image.read_bytes()).decode()
    page.evaluate(_DROP, [data, options.image.name, kinds.get(options.image.suffix, "image/jpeg")])
    page.wait_for_selector("#picture img")
    for _ in range(50):
        page.wait_for_timeout(200)
        if walk.titles() != before:
            break
    walk.check(walk.titles() != before, "the dropped picture changes nothing")
    walk.picture("dropped")
    page.evaluate(_DROP, [base64.b64encode(b"<svg onload=alert(1)>").decode(), "x.jpg", "image/jpeg"])
    page.wait_for_selector("#message.error")
    walk.picture("bad-picture")
    page.locator("#remove-picture").click()
    page.wait_for_timeout(800)
    walk.check(page.locator("#picture").is_hidden(), "the picture stays")


def states(walk: Walk, options: argparse.Namespace) -> None:
    """Shows no result, a server that is slow, one that fails, and one that is gone."""
    page = walk.page
    page.goto(f"{walk.address}/?q={options.query}&score=50")
    page.wait_for_selector("#message:not([hidden])")
    walk.picture("empty")
    page.locator("#message button").click()
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    held: list[Route] = []
    page.route("**/v1/search", lambda route: held.append(route))
    page.locator("#q").fill("slow")
    page.wait_for_selector("#progress:not([hidden])")
    walk.picture("slow")
    for route in held:
        with contextlib.suppress(Error):  # the page has aborted it
            route.continue_()
    page.unroute("**/v1/search")
    page.wait_for_selector("#progress", state="hidden")
    fault = '{"message":"the server failed","code":"internal","type":"internal","link":"/errors#internal"}'
    page.route("**/v1/search", lambda route: route.fulfill(status=500, body=fault))
    page.locator("#q").fill("fault")
    page.wait_for_selector("#message.error")
    walk.check("the server failed" in page.locator("#message").inner_text(), "the fault is not shown")
    page.unroute("**/v1/search")
    page.route("**/v1/**", lambda route: route.abort())
    page.locator("#q").fill("gone")
    page.wait_for_timeout(800)
    walk.check("does not answer" in page.locator("#message").inner_text(), "a server that is gone is not stated")
    walk.picture("offline")
    page.unroute("**/v1/**")
    page.locator("#retry").click()
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    walk.check(page.locator("#message").is_hidden(), "the error stays after a new try")


def phone(walk: Walk, options: argparse.Namespace) -> None:
    """Shows results and filters on a phone; nothing is wider than the screen."""
    page = walk.page
    page.goto(f"{walk.address}/?q={options.query}")
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    walk.picture("phone")
    wide = "document.documentElement.scrollWidth <= innerWidth"
    walk.check(page.evaluate(wide), "the page is wider than a phone")
    page.locator("summary").click()
    walk.picture("phone-filters")
    walk.check(page.evaluate(wide), "the filters are wider than a phone")
    page.locator("summary").click()
    page.locator("#grid h3 button").first.click()
    walk.picture("phone-detail")


def dark(walk: Walk, options: argparse.Namespace) -> None:
    """Shows results and a product in dark colors."""
    walk.page.goto(f"{walk.address}/?q={options.query}")
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    walk.picture("dark")
    walk.page.locator("#grid h3 button").first.click()
    walk.picture("dark-detail")


def chinese(walk: Walk, options: argparse.Namespace) -> None:
    """Shows the page in Chinese, and changes the language."""
    page = walk.page
    page.goto(f"{walk.address}/?q={options.query}")
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    walk.check("件商品" in walk.status(), "a Chinese browser gets another language")
    walk.picture("chinese")
    page.locator("#language").click()
    page.wait_for_timeout(600)
    walk.check("product" in walk.status(), "the button does not change the language")
    page.reload()
    walk.wait("document.querySelectorAll('#grid li').length > 0")
    walk.check("product" in walk.status(), "the chosen language is lost")


if __name__ == "__main__":
    sys.exit(main())
