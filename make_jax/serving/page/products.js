// Cards of results, and the dialog of one product.

import { showPicture } from "./api.js";
import { byId, element, fill } from "./dom.js";
import { shownValue } from "./facets.js";
import { number, text } from "./texts.js";

/** A card. `open` shows the product, `similar` searches for similar ones; `above` is an element over the title. */
export function card(hit, open, similar, above = null) {
  const details = hit._rankingScoreDetails ?? {};
  const title = hit.title || text("noTitle");
  return element("li", {}, element("article", { class: "card" },
    element("div", { class: "photo", click: () => open(hit) }, photo(hit)),
    above,
    element("h3", {}, element("button", { type: "button", click: () => open(hit) }, title)),
    element("p", { class: "attributes" }, attributesOf(hit).map(named).join(" · ")),
    weights(details),
    keywords(details.matchedKeywords),
    element("div", { class: "foot" },
      element("span", { class: "score" }, hit._rankingScore ? `${text("score")} ${number(hit._rankingScore, 3)}` : ""),
      element("button", { type: "button", class: "link", "aria-label": `${text("similar")}: ${title}`, click: () => similar(hit) }, text("similar")))));
}

/** Shows a product in a dialog; the browser returns the focus to where it was when it closes. */
export function showDetail(hit, similar) {
  const dialog = byId("detail");
  const details = hit._rankingScoreDetails ?? {};
  const parts = [["score", hit._rankingScore], ["cosine", details.dense], ["bm25", details.lexical], ["matching", details.matching]];
  const rows = [
    ...attributesOf(hit).map(([name, value]) => [name, shown(value)]),
    ...parts.filter(([, value]) => typeof value === "number").map(([name, value]) => [text(name), number(value, 4)]),
    ["id", hit.id],
  ];
  const close = () => dialog.close();
  fill(dialog, element("div", { class: "sheet" },
    element("div", { class: "photo" }, photo(hit)),
    element("div", {},
      element("h2", { id: "detail-title" }, hit.title || text("noTitle")),
      element("dl", {}, ...rows.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
      weights(details), keywords(details.matchedKeywords),
      element("div", { class: "buttons" },
        element("button", { type: "button", class: "primary", click: () => { close(); similar(hit); } }, text("similar")),
        element("button", { type: "button", click: close }, text("close"))))));
  dialog.showModal();
}

function photo(hit) {
  if (!hit._image) return element("span", {}, text("noPicture"));
  const image = element("img", { alt: "", loading: "lazy", decoding: "async" });
  image.addEventListener("error", () => image.replaceWith(element("span", {}, text("noPicture"))));
  showPicture(image, hit._image);
  return image;
}

function weights(details) {
  const { titleWeight: title, imageWeight: image } = details;
  if (!title && !image) return null;
  const ofTitle = Math.round((100 * title) / (title + image));
  const bars = ["title", "image"].map((name) => element("span", { class: name }));
  bars[0].style.setProperty("width", `${ofTitle}%`); // through the style object: the security policy bars style attributes
  bars[1].style.setProperty("width", `${100 - ofTitle}%`);
  return element("div", { class: "weights", role: "img", "aria-label": text("weights", ofTitle, 100 - ofTitle) },
    element("div", { class: "track" }, ...bars),
    element("div", { class: "legend", "aria-hidden": "true" },
      element("span", {}, `${text("title")} ${ofTitle} %`), element("span", {}, `${100 - ofTitle} % ${text("picture")}`)));
}

function keywords(matched) {
  if (!matched?.length) return null;
  return element("p", { class: "keywords" }, text("matched"), ...matched.flatMap((each) => [element("mark", {}, each), " "]));
}

const attributesOf = (hit) => Object.entries(hit).filter(([name]) => !name.startsWith("_") && name !== "id" && name !== "title");

/** A value; a number, yes and no with the name of the attribute, as they say nothing alone. */
const named = ([name, value]) => (["number", "boolean"].includes(typeof value) ? `${name} ${shown(value)}` : shown(value));

const shown = (value) => (Array.isArray(value) ? value : [value]).map((each) => (typeof each === "number" ? number(each, 2) : shownValue(String(each)))).join(", ");
