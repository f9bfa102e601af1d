"""Each benchmark in its published layout becomes a valid catalog with the same content."""

import json
from pathlib import Path

import pytest

from make_jax.errors import InputError
from tests.catalog.importers import published
from tests.catalog.importers.contents import contents
from tests.catalog.importers.imports import imported


def test_wands_has_three_grades_and_no_images(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "wands", published.wands(tmp_path / "WANDS"))
    assert [product.id for product in catalog.products] == ["0", "1", "2", "3", "4", "5"]
    assert catalog.products[1].category == ("Furniture", "Bedroom Furniture", "Beds")
    assert {product.split for product in catalog.products} == {"test"} and catalog.products[0].category == ()
    assert {query.text: query.rel for query in catalog.queries} == {
        "salon chair": {"3": 0, "2": 1},
        "décor bed": {"5": 2, "0": 2},
    }
    assert catalog.info.relevant == 2 and catalog.info.gains == {} and catalog.info.licence.startswith("MIT")
    provenance = (tmp_path / "out/PROVENANCE.md").read_text(encoding="utf-8")
    assert "ECIR 2022" in provenance and "label.csv, " in provenance and str(tmp_path) not in provenance


def test_muge_reports_on_the_published_validation_split(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "muge", published.muge(tmp_path / "MUGE"))
    first = catalog.products[0]
    assert first.title == "" and catalog.image_bytes(first) == published.encoded_image(0)
    assert len(catalog.split_products("test")) == 4 and len(catalog.split_queries("test")) == 4
    assert catalog.queries[-4].rel == {"5000": 1, "5001": 1}
    val = {product.id for product in catalog.split_products("val")}
    assert 0 < len(val) < 10
    judged = {product for query in catalog.split_queries("val") for product in query.rel}
    assert judged <= val and {click.product for click in catalog.clicks}.isdisjoint(val)
    assert {click.lang for click in catalog.clicks} == {"zh"}


def test_esci_keeps_test_products_out_of_training(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "esci", published.esci(tmp_path / "esci-data"))
    assert catalog.info.name == "esci-us-small" and catalog.info.gains == {0: 0, 1: 1, 2: 10, 3: 100}
    judged = {product for query in catalog.split_queries("test") for product in query.rel}
    assert {product.id for product in catalog.split_products("test")} == judged == {f"B{n:03d}" for n in range(8)}
    assert {query.text for query in catalog.queries} == {f"query no. {n}" for n in range(8)}
    assert catalog.split_queries("test")[0].rel == {"B000": 3, "B001": 2, "B002": 1, "B003": 0}
    train = {product.id for product in catalog.split_products("train")}
    exact = {(q.text, p) for q in catalog.split_queries("train") for p, grade in q.rel.items() if grade == 3}
    assert {(click.query, click.product) for click in catalog.clicks} == {pair for pair in exact if pair[1] in train}
    assert all(product.title.startswith("us ") and product.image is None for product in catalog.products)


def test_esci_reads_another_language_and_the_large_version(tmp_path: Path) -> None:
    source = published.esci(tmp_path / "esci-data")
    spanish = imported(tmp_path / "es", "esci", source, "--locale", "es")
    assert [query.lang for query in spanish.queries] == ["es"] and spanish.products[0].title == "es product 16"
    large = imported(tmp_path / "large", "esci", source, "--version", "large")
    assert "query no. 9" in {query.text for query in large.queries}


@pytest.mark.parametrize("layout", ["parquet", "webdataset", "files"])
def test_esci_takes_the_pictures_that_img2dataset_fetched(tmp_path: Path, layout: str) -> None:
    source = published.esci(tmp_path / "esci-data")
    images = published.img2dataset_output(tmp_path / "sqid", layout, ["B000", "B001", "B002", "unknown"])
    catalog = imported(tmp_path / "out", "esci", source, "--images", images)
    found = {product.id: catalog.image_bytes(product) for product in catalog.products if product.image}
    assert found == {"B000": published.encoded_image(0), "B002": published.encoded_image(2)}


def test_google_shopping_asks_with_titles_and_categories_and_hides_titles(tmp_path: Path) -> None:
    source = published.marqo_eval(tmp_path / "google")
    catalog = imported(tmp_path / "out", "google-shopping", source)
    assert catalog.info.hide_title and {product.title for product in catalog.products} == {""}
    by_kind = {(query.kind, query.text): query.rel for query in catalog.queries}
    assert by_kind[("title", "Lamp 1 ...")] == {"id-2": 1, "id-3": 1}
    assert by_kind[("category", "rugs")] == {"id-1": 1, "id-3": 1, "id-5": 1, "id-7": 1} and len(by_kind) == 6
    truth = published.ground_truth(tmp_path / "gt_results.json")
    published_queries = imported(tmp_path / "truth", "google-shopping", source, "--ground-truth", truth).queries
    assert [query.text for query in published_queries if query.kind == "title"] == ["Lamp 1 ..."]
    assert by_kind[("title", "Lamp 1 ...")] == published_queries[-1].rel


def test_amazon_products_asks_with_titles_alone(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "amazon-products", published.marqo_eval(tmp_path / "amazon", categories=False))
    assert {query.kind for query in catalog.queries} == {"title"} and len(catalog.queries) == 4


def test_marqo_gs_has_four_parts_over_two_corpora(tmp_path: Path) -> None:
    source, images = published.marqo_gs_files(tmp_path / "gs")
    catalog = imported(tmp_path / "out", "marqo-gs", source, "--images", images)
    assert catalog.info.name == "marqo_gs_tiny" and catalog.products[0].title == 'Häkel "bag" 1000'
    assert [product.split for product in catalog.products] == ["train"] * 4 + ["test"] * 4
    assert [product.id for product in catalog.products if product.image is None] == ["1003"]
    parts = {(query.split, query.kind) for query in catalog.queries}
    assert parts == {
        ("train", "in-domain"),
        ("train", "novel-query"),
        ("test", "novel-document"),
        ("test", "zero-shot"),
    }
    assert catalog.queries[0].rel == {"1000": 100, "1001": 99, "1002": 98} and catalog.info.gains == {}
    assert {click.query for click in catalog.clicks} == {"bags, red", "bags, blue"} and len(catalog.clicks) == 6


def test_marqo_gs_from_hugging_face_has_the_same_parts(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "marqo-gs", published.marqo_gs_parquet(tmp_path / "gs"))
    assert [product.split for product in catalog.products] == ["train"] * 4 + ["test"] * 4
    assert len(catalog.queries) == 8 and len(catalog.clicks) == 6
    assert catalog.image_bytes(catalog.products[5]) == published.encoded_image(5)


def test_a_missing_file_of_several_is_named(tmp_path: Path) -> None:
    source = published.marqo_eval(tmp_path / "google")
    (source / "data/data-00000-of-00002.parquet").unlink()
    with pytest.raises(InputError, match="data-00000-of-00002 is missing, expected all of them"):
        imported(tmp_path / "out", "google-shopping", source)


def test_fashion_reads_titles_with_commas_and_labels(tmp_path: Path) -> None:
    catalog = imported(tmp_path / "out", "fashion", published.kaggle_fashion(tmp_path / "kaggle"))
    products = {product.id: product for product in catalog.products}
    assert products["1002"].title == "Puma Men Style 2 White Casual Shoe, Pack of 2"
    assert products["1000"].category == ("Apparel", "Topwear", "Tshirts")
    assert [product.id for product in catalog.products if product.image is None] == ["1023"]
    assert {product.id for product in catalog.products if product.sensitive} == {f"{n}" for n in range(1003, 1024, 4)}
    lines = [json.loads(line) for line in (tmp_path / "out/products.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines[0]["brand"] == "PUMA SE" and lines[1]["brand"] == "Puma" and "usage" not in lines[1]
    assert lines[0]["year"] == "2011" and lines[0]["colour"] == "Blue" and lines[0]["gender"] == "Men"
    assert catalog.queries == () and catalog.clicks == ()


def test_fashion_from_hugging_face_is_the_same_catalog(tmp_path: Path) -> None:
    kaggle = published.kaggle_fashion(tmp_path / "kaggle")
    (kaggle / "styles/1000.json").unlink()
    (kaggle / "images/1023.jpg").write_bytes(published.encoded_image(23))
    text = (kaggle / "styles.csv").read_text(encoding="utf-8").replace(",NA,", ",Casual,").replace(", Pack of 2", "")
    (kaggle / "styles.csv").write_text(text, encoding="utf-8")
    imported(tmp_path / "a", "fashion", kaggle)
    imported(tmp_path / "b", "fashion", published.hugging_face_fashion(tmp_path / "hf"))
    of_kaggle, of_hugging_face = contents(tmp_path / "a"), contents(tmp_path / "b")
    del of_kaggle["PROVENANCE.md"], of_hugging_face["PROVENANCE.md"]
    assert of_kaggle == of_hugging_face
