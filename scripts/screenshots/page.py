"""Walks through the page in headless Chromium and makes screenshots of it.

    pip install playwright                      # not in requirements.txt; Chromium of the system: apt install chromium
    python search.py serve INDEX &
    python scripts/screenshots/page.py http://127.0.0.1:8000 OUT --query "red running shoes" --image photo.jpg

Without --image no picture is dropped; on a server without --compare no models are compared. The script states both.
Each step is checked; the script ends with 1 and a line for each failure. `--axe FILE` is axe.min.js of the npm package
axe-core: then each state is checked for accessibility, and serious findings are failures. Requests to another host and
messages of the console are failures too.
"""

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Error, Route, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root

from scripts.screenshots.awkward_products import BRANDS, INDEX, search_answer
from scripts.screenshots.compare_walks import compare, compare_changes, compare_phone
from scripts.screenshots.walk import Walk

DESKTOP, PHONE = {"width": 1200, "height": 760}, {"width": 390, "height": 844}


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
            (awkward, {}),
            (compare, {}),
            (compare_changes, {}),
            (compare_phone, {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}),
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
                    with contextlib.suppress(Error):  # no page: the server is not there
                        one.page.screenshot(path=str(options.out / f"failed-{step.__name__}.png"))
        browser.close()
    print("\n".join(failures) or "no failure")
    return int(bool(failures))


def search_and_filter(walk: Walk, options: argparse.Namespace) -> None:
    """Types a query, filters by a facet, goes back, opens the shared address anew."""
    page = walk.page
    walk.open()
    page.locator("#q").press_sequentially(options.query[:3], delay=40)
    with contextlib.suppress(Error):
        page.wait_for_selector("#suggestions:not([hidden]) li", timeout=3000)
    walk.check(page.locator("#suggestions li").count(), f"no suggestion for {options.query[:3]!r}")
    walk.picture("suggestions")
    page.locator("#q").press_sequentially(options.query[3:], delay=40)
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
    else:
        print("no filter is set: the products have no attributes")
    if page.locator("#pages button").count() and page.locator("#pages button").last.is_enabled():
        first = walk.titles()
        page.locator("#pages button").last.click()
        walk.wait("location.search.includes('page=2')")
        page.wait_for_timeout(800)
        walk.check(walk.titles() != first, "the second page has the results of the first")


def keyboard(walk: Walk, options: argparse.Namespace) -> None:
    """Searches, chooses a suggestion, filters and opens a product without a mouse."""
    page = walk.page
    walk.open()
    walk.check(page.evaluate("document.activeElement.id") == "q", "the search box has no focus at the start")
    page.keyboard.type(options.query[:3], delay=30)
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
    walk.open(f"?q={options.query}")
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
        print("no picture is dropped: no --image")
        return
    page = walk.page
    walk.open()
    before = walk.titles()
    walk.drop(options.image.read_bytes(), options.image.name)
    page.wait_for_selector("#picture img")
    for _ in range(50):
        page.wait_for_timeout(200)
        if walk.titles() != before:
            break
    walk.check(walk.titles() != before, "the dropped picture changes nothing")
    walk.picture("dropped")
    walk.drop(b"<svg onload=alert(1)>", "x.jpg")
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


def awkward(walk: Walk, options: argparse.Namespace) -> None:
    """Shows products with markup, without title or picture, with long texts, 5,000 values of a filter; then one."""
    page, answers = walk.page, {"count": None}

    def answer(route: Route) -> None:
        route.fulfill(body=json.dumps(search_answer(answers["count"])), content_type="application/json")

    page.route("**/v1/search", answer)
    page.route("**/v1/index", lambda route: route.fulfill(body=json.dumps(INDEX), content_type="application/json"))
    walk.open()
    walk.check(page.locator("#results img[src=x], #results b, #results script").count() == 0, "a title became markup")
    walk.check(walk.titles()[0].startswith("<img"), "a title with markup is not shown as it is")
    walk.check(walk.titles()[1] == "(no title)", "a product without title has none on the page")
    walk.check(page.locator("#choose").is_hidden(), "a model without images can be searched by picture")
    walk.check(page.locator("#compare").is_hidden(), "one model can be compared")
    page.wait_for_timeout(500)
    walk.check(page.locator(".photo", has_text="No picture").count() == 3, "a picture that is missing is not stated")
    wide = "document.documentElement.scrollWidth <= innerWidth"
    walk.check(page.evaluate(wide), "long texts make the page wider")
    walk.picture("awkward")
    page.locator("#more-brand").click()
    page.locator("#find-brand").press_sequentially(f"brand {BRANDS - 1}")
    found = page.locator("fieldset", has=page.locator("#find-brand")).locator("label.value .name").all_inner_texts()
    walk.check(found == [f"Brand {BRANDS - 1}"], f"the box for values finds {found}")
    walk.picture("find-value")
    page.locator("#grid h3 button").first.click()
    walk.picture("awkward-detail")
    page.keyboard.press("Escape")
    answers["count"] = 1
    page.locator("#q").fill("one")
    walk.wait("document.querySelectorAll('#grid li').length === 1")
    walk.check(walk.status() == "1 product", f"one product is stated as {walk.status()!r}")
    walk.picture("one")


def phone(walk: Walk, options: argparse.Namespace) -> None:
    """Shows results and filters on a phone; nothing is wider than the screen."""
    page = walk.page
    walk.open(f"?q={options.query}")
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
    walk.open(f"?q={options.query}")
    walk.picture("dark")
    walk.page.locator("#grid h3 button").first.click()
    walk.picture("dark-detail")


def chinese(walk: Walk, options: argparse.Namespace) -> None:
    """Shows the page in Chinese, and changes the language."""
    page = walk.page
    walk.open(f"?q={options.query}")
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
