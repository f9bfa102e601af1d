"""Walks through the page of a server that compares two models."""

import argparse
import re

from scripts.screenshots.walk import Walk


def has_two(walk: Walk) -> bool:
    """Whether the server has two indexes; states it if not."""
    two = walk.page.locator("#compare").is_visible()
    if not two:
        print("no models are compared: the server has one index")
    return two


def compare(walk: Walk, options: argparse.Namespace) -> None:
    """Switches to two models by keyboard, follows a rank to the other one, opens the shared address anew, goes back."""
    page = walk.page
    walk.open(f"?q={options.query}")
    if not has_two(walk):
        return
    alone = walk.titles()
    page.locator("#compare").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".column")
    walk.check("compare=1" in page.url, "the address does not hold the comparison")
    walk.check(page.locator("#compare").get_attribute("aria-pressed") == "true", "the switch is not on")
    columns = page.locator(".column")
    names = columns.locator("h2").all_inner_texts()
    walk.check(len(names) == 2 and names[0] != names[1], f"the columns are named {names}")
    walk.check(columns.first.locator("h3").all_inner_texts() == alone, "the first column has other results than alone")
    titles = [columns.nth(side).locator("h3").all_inner_texts() for side in (0, 1)]
    walk.check(titles[0] != titles[1], "both models have the same results")
    for side in (0, 1):
        for place, line in enumerate(walk.ranks(side)):
            rank = re.search(r"rank (\d+) in the other", line)
            if rank and int(rank[1]) <= len(titles[1 - side]):
                there = titles[1 - side][int(rank[1]) - 1]
                walk.check(there == titles[side][place], f"{line!r} leads to {there!r}, not {titles[side][place]!r}")
    walk.picture("compare")
    link = columns.first.locator(".rank button").first
    if link.count():
        rank = int(re.sub(r"\D", "", link.inner_text()))
        link.focus()
        page.keyboard.press("Enter")
        focused = page.evaluate("document.activeElement.closest('li').id")
        walk.check(focused == f"compared-1-{rank - 1}", f"the rank leads to {focused}")
        walk.check(page.locator(".marked").count() == 2, "the two cards of a product are not marked")
        walk.picture("compare-other")
    shared = page.url
    walk.open(shared.removeprefix(f"{walk.address}/"))
    again = [columns.nth(side).locator("h3").all_inner_texts() for side in (0, 1)]
    walk.check(again == titles, "the shared comparison shows other results")
    page.locator("#compare").click()
    page.wait_for_selector(".column", state="detached")
    walk.check("compare" not in page.url and walk.titles() == alone, "one model is not back")


def compare_changes(walk: Walk, options: argparse.Namespace) -> None:
    """Filters two models, searches both for similar products and a picture; one that fails; Chinese."""
    page = walk.page
    walk.open(f"?q={options.query}&compare=1")
    if not has_two(walk):
        return
    columns = page.locator(".column")
    box = page.locator("#facets input[type=checkbox]").first
    if box.count():
        box.check()
        page.wait_for_selector(".chip")
        page.wait_for_timeout(800)
        totals = [line.split(" · ")[-1] for line in columns.locator("header p:first-of-type").all_inner_texts()]
        walk.check(totals[0] == totals[1], f"the filter keeps {totals}")
        page.locator(".chip").first.click()
        page.wait_for_timeout(800)
    title = columns.nth(1).locator("h3").first.inner_text()
    columns.nth(1).locator("h3 button").first.click()
    walk.check(page.locator("dialog h2").inner_text() == title, "the dialog shows another product")
    page.locator("dialog button.primary").click()
    walk.wait("location.search.includes('like=') && location.search.includes('compare=1')")
    page.wait_for_timeout(800)
    walk.check(columns.count() == 2, "similar products are not compared")
    if options.image is not None:
        walk.open("?compare=1")
        walk.drop(options.image.read_bytes(), options.image.name)
        page.wait_for_selector("#picture img")
        page.wait_for_timeout(1500)
        walk.check(columns.locator("h3").count() > 2, "a picture is not searched for by both models")
        walk.picture("compare-picture")
    fault = '{"message":"the second failed","code":"internal","type":"internal","link":"/errors#internal"}'
    second = page.evaluate("fetch('/v1/index').then((answer) => answer.json()).then((info) => info.indexes[1])")
    page.route(
        "**/v1/search",
        lambda route: (
            route.fulfill(status=500, body=fault)
            if f'"index":"{second}"' in (route.request.post_data or "")
            else route.continue_()
        ),
    )
    walk.open(f"?q={options.query}&compare=1")
    walk.check(
        columns.nth(1).locator(".nothing").inner_text() == "the second failed", "a column does not state its error"
    )
    walk.check(columns.first.locator("h3").count() > 0, "the error of one model hides the other")
    walk.picture("compare-error")
    page.unroute("**/v1/search")
    walk.open(f"?q={options.query}&compare=1&lang=zh")
    walk.check("另一侧" in "".join(walk.ranks(0)), "ranks are not in Chinese")
    walk.picture("compare-chinese")


def compare_phone(walk: Walk, options: argparse.Namespace) -> None:
    """Shows both columns on a phone."""
    walk.open(f"?q={options.query}&compare=1")
    if has_two(walk):
        walk.picture("compare-phone")
        walk.check(walk.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than a phone")
