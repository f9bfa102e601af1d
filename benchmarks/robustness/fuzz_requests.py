"""Hostile HTTP requests to a search server, by kind, each a pure function of a seed: `make(seed, number)`.

A request is bytes for a socket. `expected` are the statuses that the server may answer with; every text, id and key of
a request contains `MARKER`, which the server must not log.
"""

import json
import random
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_from_bytes, urlencode

from benchmarks.robustness import fuzz_pictures

MARKER = "zqxjk"
OK, BAD = frozenset({200}), frozenset({400})
EITHER = OK | BAD
_ROUTES = ("/", "/v1/search", "/v1/suggest", "/v1/index", "/v1/products/x", "/v1/similar/x", "/v1/click", "/v1", "//",
           "/healthz", "/readyz", "/metrics", "/openapi.json", "/errors", "/page/x", "/%2e%2e/", "/docs")  # fmt: skip
_PARAMETERS = ("q", "filter", "facets", "sort", "limit", "offset", "page", "hitsPerPage", "distinct", "maxPerValue",
               "rankingScoreThreshold", "lexicalWeight", "imageWeight", "like", "unlike", "rerank", "correct",
               "explain", "retrieveVectors")  # fmt: skip
_VALUES: tuple[Any, ...] = (None, True, False, 0, -1, 1, 10**6, 10**30, -(10**30), 1.5, 1e308, -1e-308, "", "0", "-1",
                            "NaN", "Infinity", "1e999", "٣", "²", "0x10", " 1", [], {}, [[]], [None], [1], {"a": []},
                            [""] * 200, "x" * 30_000)  # fmt: skip


@dataclass(frozen=True)
class FuzzRequest:
    """What is sent, and what may come back."""

    kind: str
    data: bytes
    expected: frozenset[int] = EITHER
    method: str = "GET"
    may_close: bool = False  # without an answer
    behavior: str = ""  # "drop", "drop response", "slow headers", "slow body", "slow reader"; "": a usual client
    repeated: int = 0  # bytes that follow `data`


@dataclass(frozen=True)
class Target:
    """What requests name of a server."""

    host: str
    key: str  # "": the server has no keys
    ids: Sequence[str]  # of products
    attributes: Sequence[str]


Kind = Callable[[random.Random, Target], FuzzRequest]
_KINDS: list[tuple[int, Kind]] = []


def _kind(weight: int) -> Callable[[Kind], Kind]:
    def add(function: Kind) -> Kind:
        _KINDS.append((weight, function))
        return function

    return add


def make(seed: int, number: int, target: Target) -> FuzzRequest:
    """The request of a number, of a random kind."""
    rng = random.Random(f"{seed} {number}")
    (function,) = rng.choices([kind for _, kind in _KINDS], [weight for weight, _ in _KINDS])
    return function(rng, target)


def make_all(
    seed: int, count: int, target: Target, *, slow: int = 0, uploads: int = 0, bombs: int = 0
) -> list[FuzzRequest]:
    """`count` requests in random order: one of each kind at least, and so many of the kinds that take long."""
    kinds = [kind for weight, kind in _KINDS if weight] + [*_SLOW] * slow + [_large_upload] * uploads + [_bomb] * bombs
    first = [kind(random.Random(f"{seed} first {place}"), target) for place, kind in enumerate(kinds)]
    requests = [*first, *(make(seed, number, target) for number in range(count - len(first)))][:count]
    random.Random(seed).shuffle(requests)
    return requests


# --- texts ---


def text(rng: random.Random, most: int = 1500) -> str:
    """A text of some script, with the marker in it."""
    alphabets = [
        string.printable,
        "".join(map(chr, range(32))) + "\x7f\x85\u2028\ufeff\u200b",
        "אבגדהוזחט שלום مرحبا\u202e\u202d\u2066",
        "👟👩‍👩‍👧‍👦🏳️‍🌈e\u0301\u0300\u0302Z͑ͫ̓",
        "红色的鞋子上衣",
        "\ud800\udfff\udbff",
        "'\"<>&;--${}%()[]=\\/*",
    ]
    letters = rng.choice(alphabets)
    length = rng.choice((0, 1, 5, 50, 999, most))
    return MARKER + "".join(rng.choice(letters) for _ in range(length))


def _encoded(value: str) -> str:
    return quote_from_bytes(value.encode("utf-8", "surrogatepass"), safe="")


@_kind(12)
def _text_in_query_string(rng: random.Random, target: Target) -> FuzzRequest:
    query = text(rng)
    more = rng.choice(("", "&explain=1", "&facets=*", "&limit=0", "&correct=false"))
    return _get(target, "text in a query string", f"/v1/search?q={_encoded(query)}{more}")


@_kind(12)
def _text_in_json(rng: random.Random, target: Target) -> FuzzRequest:
    return _json(target, "text in JSON", json.dumps({"q": text(rng)}).encode())


@_kind(3)
def _huge_text(rng: random.Random, target: Target) -> FuzzRequest:
    body = json.dumps({"q": MARKER + "a " * rng.choice((5_000, 30_000, 500_000))}).encode()
    return _json(target, "huge text", body, frozenset({400, 413}))


@_kind(5)
def _suggestion(rng: random.Random, target: Target) -> FuzzRequest:
    limit = rng.choice(("1", "20", "0", "-1", "x", "99999999999", ""))
    return _get(target, "suggest", f"/v1/suggest?q={_encoded(text(rng))}&limit={limit}")


@_kind(10)
def _usual_search(rng: random.Random, target: Target) -> FuzzRequest:
    values = {
        "q": rng.choice(("apple", "red flower", "苹果", "car", "")),
        "limit": rng.choice((1, 20, 100)),
        "explain": 1,
    }
    values |= rng.choice(({}, {"offset": 10}, {"facets": "*"}, {"like": rng.choice(target.ids)}, {"page": 3}))
    return _get(target, "usual search", f"/v1/search?{urlencode(values)}", OK)


# --- parameters ---


@_kind(10)
def _wrong_value_in_json(rng: random.Random, target: Target) -> FuzzRequest:
    values = {rng.choice(_PARAMETERS): rng.choice(_VALUES) for _ in range(rng.choice((1, 1, 2, 5)))}
    body = json.dumps(values)
    if rng.random() < 0.2:
        body = body.replace("1.5", rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "0" * 5000)))
    return _json(target, "wrong value in JSON", body.encode())


@_kind(8)
def _wrong_value_in_query_string(rng: random.Random, target: Target) -> FuzzRequest:
    values = [(rng.choice(_PARAMETERS), str(rng.choice(_VALUES))[:3000]) for _ in range(rng.choice((1, 2, 5)))]
    route = rng.choice(("/v1/search", f"/v1/similar/{quote(rng.choice(target.ids), safe='')}"))
    return _get(target, "wrong value in a query string", f"{route}?{urlencode(values)}")


@_kind(3)
def _unknown_parameter(rng: random.Random, target: Target) -> FuzzRequest:
    name = rng.choice(("hybrid", "Q", "__proto__", "constructor", "limit[]", "q.x", "\x00", "q" * 1000, "🦄"))
    if rng.random() < 0.5:
        return _json(target, "unknown parameter", json.dumps({MARKER + name: 1}).encode(), BAD)
    return _get(target, "unknown parameter", f"/v1/search?{quote(MARKER + name)}=1", BAD)


@_kind(4)
def _large_pages(rng: random.Random, target: Target) -> FuzzRequest:
    values: dict[str, Any] = {"q": "red", "limit": 1000, "retrieveVectors": "true", "explain": "true", "facets": "*"}
    values |= rng.choice(({}, {"offset": 1_000_000}, {"page": 1_000_000, "hitsPerPage": 1000}))
    return _get(target, "large page", f"/v1/search?{urlencode(values)}", OK)


@_kind(10)
def _filters(rng: random.Random, target: Target) -> FuzzRequest:
    name = rng.choice((*target.attributes, "nothing", "a b", "id", "title"))
    value = rng.choice(("1", "'x", '"', "[", "]", "(", "1e309", "NaN", "red", text(rng, 50), "\\", "$(id)", "1; DROP"))
    operator = rng.choice(("=", "!=", ">", "<=", " IN ", " TO ", " EXISTS", " IS NULL", " CONTAINS ", "=="))
    expressions = [
        f"{name} {operator} {value}",
        f"{name} IN [{','.join(map(str, range(rng.choice((1, 1000, 6000)))))}]",
        "(" * rng.choice((5, 40, 9_000)) + f"{name} = 1" + ")" * 5,
        "NOT " * rng.choice((5, 40, 4_000)) + f"{name} = 1",
        " OR ".join([f"{name} = {i}" for i in range(rng.choice((10, 900, 1_500)))]),
        " AND ".join(["(a = 1 OR b = 2)"] * 300),
        "".join(rng.choice(" ()[]\"'=<>!,ANDORTIN1a\\") for _ in range(rng.choice((10, 200, 15_000)))),
    ]
    expression = rng.choice(expressions)
    nested: Any = rng.choice((expression, [expression], [[expression]], [[expression] * 50] * 5, [[[expression]]]))
    return _json(target, "filter", json.dumps({"filter": nested}).encode(), EITHER | {413})


# --- addresses ---


@_kind(8)
def _traversal(rng: random.Random, target: Target) -> FuzzRequest:
    step = rng.choice(("../", "..%2f", "%2e%2e/", "..%5c", "....//", "%252e%252e/", "..;/", "%c0%ae%c0%ae/"))
    file = rng.choice(("etc/passwd", "index.json", "current", "proc/self/environ", "%00", MARKER))
    base = rng.choice(("/v1/products/", "/v1/similar/", "/page/", "/", "/v1/products/1/thumbnail/"))
    path = base + step * rng.choice((1, 4, 12)) + file + rng.choice(("", "/thumbnail", "%00.webp", "?x=1"))
    return _get(target, "path traversal", path, frozenset({400, 404}))


@_kind(5)
def _product(rng: random.Random, target: Target) -> FuzzRequest:
    known = rng.random() < 0.5
    name = quote(rng.choice(target.ids), safe="") if known else _encoded(text(rng, 3000))
    path = rng.choice((f"/v1/products/{name}", f"/v1/products/{name}/thumbnail", f"/v1/similar/{name}"))
    return _get(target, "product", path, frozenset({200, 404}))


@_kind(5)
def _method(rng: random.Random, target: Target) -> FuzzRequest:
    name = rng.choice(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"))
    data = _head(target, name, rng.choice(_ROUTES), [("Content-Length", "0")])
    return FuzzRequest("method and address", data, frozenset({200, 400, 404, 405, 415}), name)


# --- bodies ---


@_kind(6)
def _malformed_json(rng: random.Random, target: Target) -> FuzzRequest:
    body = rng.choice((
        b"", b"{", b"[]", b"null", b'{"q": "\\ud800"}', b'{"q": "\xff\xfe"}', b"\x00" * 100, b"[" * 30_000,
        b'{"a":' * 8_000 + b"1" + b"}" * 8_000, b'{"q":"a","q":"b"}', b"{'q': 1}", b'\xef\xbb\xbf{"q": "a"}',
        b'{"limit": ' + b"9" * 60_000 + b"}", rng.randbytes(500),
    ))  # fmt: skip
    return _json(target, "malformed JSON", body)


@_kind(3)
def _content_type(rng: random.Random, target: Target) -> FuzzRequest:
    kind = rng.choice(("", "text/html", "application/xml", "application/x-www-form-urlencoded", "application/json\x0b",
                       "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=b",
                       "application/json; charset=utf-16", "a" * 5000))  # fmt: skip
    return _post(target, "content type", b'{"q": "a"}', kind, frozenset({200, 400, 415}))


@_kind(3)
def _compressed_body(rng: random.Random, target: Target) -> FuzzRequest:
    body = fuzz_pictures.gzip_bomb() if rng.random() < 0.5 else fuzz_pictures.gzipped(b'{"q": "a"}')
    headers = [("Content-Encoding", rng.choice(("gzip", "deflate", "br")))]
    return _post(target, "compressed body", body, "application/json", frozenset({400, 413}), headers)


@_kind(2)
def _wrong_click(rng: random.Random, target: Target) -> FuzzRequest:
    body = json.dumps({"query": text(rng), "product": rng.choice((*target.ids, 1, None)), "lang": "en"}).encode()
    return _post(target, "click", body, "application/json", frozenset({204, 400, 404}), path="/v1/click")


# --- pictures ---


@_kind(4)
def _picture(rng: random.Random, target: Target) -> FuzzRequest:
    name, data, valid = rng.choice(fuzz_pictures.small())
    return _upload(target, f"picture: {name}", data, OK if valid else BAD, rng)


@_kind(6)
def _damaged_picture(rng: random.Random, target: Target) -> FuzzRequest:
    _, data, _ = rng.choice([each for each in fuzz_pictures.small() if each[2]])
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 5, 50))):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return _upload(
        target, "damaged picture", bytes(damaged[: rng.choice((len(data), len(data) // 2, 20))]), EITHER, rng
    )


@_kind(0)
def _bomb(rng: random.Random, target: Target) -> FuzzRequest:
    name, data, valid = rng.choice(fuzz_pictures.bombs())
    return _upload(target, f"bomb: {name}", data, OK if valid else BAD, rng)


@_kind(3)
def _malformed_form(rng: random.Random, target: Target) -> FuzzRequest:
    part = b'Content-Disposition: form-data; name="image"; filename="../../x.jpg"\r\n\r\n'
    field = b'--b\r\nContent-Disposition: form-data; name="%s"\r\n\r\n'
    body = rng.choice((
        b"--b\r\n" + part + b"x", b"--b\r\n\r\n--b--", b"--b\r\n" * 5000, b"--b--", b"no boundary",
        b"--b\r\n" + b"x: y\r\n" * 9000, (b"--b\r\n" + part + b"x\r\n") * 3 + b"--b--",
        field % b"q" + b"\xff\r\n--b--\r\n", field % b"q" + b"a" * 200_000 + b"\r\n--b--\r\n",
        (field % b"like" + b"1\r\n") * 300 + b"--b--\r\n",
    ))  # fmt: skip
    return _post(target, "malformed form", body, "multipart/form-data; boundary=b", EITHER | {413})


@_kind(0)
def _large_upload(rng: random.Random, target: Target) -> FuzzRequest:
    kind = rng.choice(("multipart/form-data; boundary=b", "application/json"))
    head = _head(target, "POST", "/v1/search", [("Content-Type", kind), ("Content-Length", str(100 << 20))])
    return FuzzRequest("100 MB upload", head, frozenset({413}), "POST", repeated=100 << 20)


# --- access ---


@_kind(4)
def _wrong_key(rng: random.Random, target: Target) -> FuzzRequest:
    value = rng.choice((None, "", "Bearer", "Bearer " + MARKER, "Basic " + MARKER, "Bearer " + "x" * 9000, "bearer \t",
                        "Bearer \xe9\xff", f"Bearer {target.key} x", f"Bearer {target.key[:-1]}"))  # fmt: skip
    headers = [] if value is None else [("Authorization", value)]
    path = rng.choice(("/v1/search?q=a", "/v1/index", "/metrics", "/v1/products/1", "/nothing"))
    data = _head(Target(target.host, "", (), ()), "GET", path, headers)
    return FuzzRequest("wrong key", data, frozenset({401, 403}) if target.key else frozenset({200, 404}))


@_kind(3)
def _wrong_host(rng: random.Random, target: Target) -> FuzzRequest:
    host = rng.choice(("evil.example", "localhost.evil.example", "", "[::2]", "127.0.0.1.nip.io", "a" * 5000, "\xff"))
    return _get(Target(host, target.key, (), ()), "wrong host", "/v1/search?q=a", BAD)


# --- HTTP ---


@_kind(6)
def _malformed_http(rng: random.Random, target: Target) -> FuzzRequest:
    host = f"Host: {target.host}\r\n".encode()
    get, end = b"GET / HTTP/1.1\r\n", b"\r\n\r\n"
    post = b"POST /v1/search HTTP/1.1\r\n" + host + _authorization(target) + b"Content-Type: application/json\r\n"
    chunked = post + b"Transfer-Encoding: chunked" + end
    data = rng.choice((
        rng.randbytes(300), b"\x16\x03\x01\x02\x00\x01\x00" + rng.randbytes(200), b"GET / HTTP/9.9" + end,
        b"\r\n" * 50_000, b"GET /\x00 HTTP/1.1\r\n" + host + b"\r\n", get + host * 2 + b"\r\n", get + b"\r\n",
        get + host + b"X: " + b"a" * 300_000 + end, b"GET /" + b"a" * 300_000 + b" HTTP/1.1" + end,
        get + host + b"".join(b"X-%d: y\r\n" % i for i in range(3000)) + b"\r\n", b"GET http://evil/ HTTP/1.1" + end,
        post + b"Content-Length: -1" + end, post + b"Content-Length: 1\r\nContent-Length: 2" + end + b"{}",
        post + b"Content-Length: " + b"9" * 5000 + end + b"{}", post + b"Transfer-Encoding: gzip" + end + b"{}",
        post + b"Content-Length: 5\r\nTransfer-Encoding: chunked" + end + b"0" + end, chunked + b"zz\r\n",
        chunked + b"ffffffffffffffff\r\nx", chunked + b"1\r\n{\r\n-1\r\n", get + host + b"Bad Header: x" + end,
        get + host + b"Upgrade: websocket\r\nConnection: upgrade" + end, b"PRI * HTTP/2.0" + end + b"SM" + end,
    ))  # fmt: skip
    return FuzzRequest("malformed HTTP", data, frozenset({200, 400, 401, 404, 408, 413}), may_close=True)


@_kind(2)
def _pipelined(rng: random.Random, target: Target) -> FuzzRequest:
    one = _head(target, "GET", "/v1/search?q=red&limit=3", [])
    return FuzzRequest("pipelined", one * rng.choice((2, 10, 50)) + b"garbage\r\n\r\n", OK)


@_kind(5)
def _dropped_request(rng: random.Random, target: Target) -> FuzzRequest:
    data = rng.choice((_usual_search, _text_in_json, _picture))(rng, target).data
    return FuzzRequest("dropped in the request", data[: rng.randrange(1, len(data))], behavior="drop", may_close=True)


@_kind(4)
def _dropped_response(rng: random.Random, target: Target) -> FuzzRequest:
    request = rng.choice((_large_pages, _usual_search, _picture))(rng, target)
    return FuzzRequest("dropped in the response", request.data, behavior="drop response", may_close=True)


@_kind(0)
def _slow_headers(rng: random.Random, target: Target) -> FuzzRequest:
    return FuzzRequest("slow headers", _usual_search(rng, target).data, behavior="slow headers", may_close=True)


@_kind(0)
def _slow_body(rng: random.Random, target: Target) -> FuzzRequest:
    data = _text_in_json(rng, target).data
    return FuzzRequest("slow body", data, frozenset({200, 400, 408}), "POST", True, "slow body")


@_kind(0)
def _slow_reader(rng: random.Random, target: Target) -> FuzzRequest:
    """Responses of more bytes than the buffers of the kernel hold."""
    return FuzzRequest("slow reader", _large_pages(rng, target).data * 20, behavior="slow reader", may_close=True)


_SLOW: tuple[Kind, ...] = (_slow_headers, _slow_body, _slow_reader)


# --- parts of requests ---


def _authorization(target: Target) -> bytes:
    return f"Authorization: Bearer {target.key}\r\n".encode() if target.key else b""


def _head(target: Target, method: str, path: str, headers: list[tuple[str, str]]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {target.host}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n" + _authorization(target) + b"\r\n"


def _get(target: Target, kind: str, path: str, expected: frozenset[int] = EITHER) -> FuzzRequest:
    return FuzzRequest(kind, _head(target, "GET", path, []), expected)


def _post(
    target: Target,
    kind: str,
    body: bytes,
    content: str,
    expected: frozenset[int],
    headers: Sequence[tuple[str, str]] = (),
    path: str = "/v1/search",
) -> FuzzRequest:
    all_headers = [("Content-Type", content), ("Content-Length", str(len(body))), *headers]
    return FuzzRequest(kind, _head(target, "POST", path, all_headers) + body, expected, "POST")


def _json(target: Target, kind: str, body: bytes, expected: frozenset[int] = EITHER) -> FuzzRequest:
    return _post(target, kind, body, "application/json", expected)


def _upload(target: Target, kind: str, data: bytes, expected: frozenset[int], rng: random.Random) -> FuzzRequest:
    name = rng.choice(("a.jpg", "..%2f..%2fx", "x" * 300, "a.svg", MARKER))
    part = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/jpeg\r\n\r\n'
    return _post(target, kind, part.encode() + data + b"\r\n--b--\r\n", "multipart/form-data; boundary=b", expected)
