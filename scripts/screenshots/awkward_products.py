"""Results as a server may return them, of products that are hard to show."""

from typing import Any

BRANDS = 5000
PICTURE = "/page/icon.svg"  # of the page: another one would be a request that fails


def search_answer(count: int | None = None) -> dict[str, Any]:
    """The first `count` products; None: all."""
    hits = [
        {"title": "<img src=x onerror=alert(1)><b>bold</b>", "brand": "<script>alert(2)</script>", "price": 3.5},
        {"title": "", "price": 1234567.891, "_image": None},
        {"title": "Very long title " * 40, "brand": "Brand with a long name " * 12, "price": 0},
        {"title": "W" * 400, "brand": "B" * 200, "price": -1e-7},
        {"title": "红色的鞋 👟", "brand": "李宁", "on sale": True},
        {"title": "حذاء أحمر", "brand": "عربي", "on sale": False, "sizes": [str(size) for size in range(60)]},
        {"title": "No attributes", "_image": None},
        {"title": "Picture that is missing", "price": 19.9, "_image": "/v1/products/missing/thumbnail"},
    ][:count]
    details = {"dense": 0.5, "lexical": None, "matching": None, "matchedKeywords": ["<i>red</i>", "k" * 80]}
    for place, hit in enumerate(hits):
        weights = {"titleWeight": place / 7, "imageWeight": 1 - place / 7}
        hit.update(id=f"{place}/?#<&>\"'", _rankingScore=0.5, _rankingScoreDetails={**details, **weights})
        hit.setdefault("_image", PICTURE)
    brands = {"<script>alert(2)</script>": 9, "B" * 200: 1} | {f"Brand {n}": 1 for n in range(BRANDS)}
    return {
        "hits": hits,
        "query": "red",
        "processingTimeMs": 1,
        "offset": 0,
        "limit": 24,
        "estimatedTotalHits": len(hits),
        "totalIsExact": True,
        "indexVersion": "v1",
        "facetDistribution": {"brand": brands, "price": {"3.5": 1}, "on sale": {"true": 1, "false": 1}},
        "facetStats": {"price": {"min": -1e-7, "max": 1234567.891}},
        "predictedKeywords": [{"keyword": "<u>" + "k" * 60, "probability": 0.9}],
    }


INDEX = {
    "name": "awkward",
    "indexes": ["awkward"],
    "version": "v1",
    "numberOfDocuments": 8,
    "model": "<b>model</b>",
    "catalog": "awkward",
    "attributes": {"brand": "text", "price": "number", "on sale": "true or false"},
    "acceptsImages": False,
    "acceptsClicks": False,
}
