"""The page's files: no inline code, no other host, no markup from texts, both languages complete."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE = ROOT / "make_jax" / "serving" / "page"
FILES = sorted(path for path in PAGE.iterdir() if path.suffix in (".html", ".css", ".js", ".svg"))


def test_the_page_and_all_its_files_are_served(client):
    for path in FILES:
        response = client.get(f"/page/{path.name}")
        assert response.content == path.read_bytes()
    assert client.get("/").text == (PAGE / "index.html").read_text(encoding="utf-8")
    assert client.get("/page/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
    used = re.findall(r'"(?:/page/|\./)([\w.]+)"', "".join(path.read_text(encoding="utf-8") for path in FILES))
    assert {path.name for path in FILES} == {*used, "index.html"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_has_no_inline_code_no_other_host_and_makes_no_markup(path: Path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\bon\w+=|style=|<style|<script(?! type=\"module\" src=)", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc", text)
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.-]+\.\w", re.sub(r"(?m)^\s*//.*$", "", text))


def test_both_languages_have_the_same_texts_and_all_that_are_used():
    texts = (PAGE / "texts.js").read_text(encoding="utf-8").partition("\n};")[0]
    english, chinese = (set(re.findall(r"[,\s]([a-z]\w*|bm25): \"(?!, )", part)) for part in texts.split("  zh: {"))
    assert english == chinese and len(english) > 40
    sources = "".join(path.read_text(encoding="utf-8") for path in FILES if path.name != "texts.js")
    used = set(re.findall(r"\btext\(\"(\w+)\"", sources)) | set(re.findall(r"data-(?:text|label)=\"(\w+)\"", sources))
    assert used <= english
    unused = {name for name in english - used if not re.search(rf"\"{name}\"", sources)}
    assert not unused


def test_every_id_that_a_script_needs_is_in_the_page():
    scripts = "".join(path.read_text(encoding="utf-8") for path in FILES if path.suffix == ".js")
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    needed = set(re.findall(r"byId\(\"([\w-]+)\"\)", scripts))
    assert needed and needed <= set(re.findall(r"\bid=\"([\w-]+)\"", page)) | set(
        re.findall(r"\bid: \"([\w-]+)\"", scripts)
    )
