// Two models side by side: the results of each, with the rank that every product has in the other.

import { byId, element, fill } from "./dom.js";
import { card } from "./products.js";
import { PAGE_SIZE } from "./state.js";
import { number, text } from "./texts.js";

/**
 * Shows two columns. A column is { info, answer } or { info, error }; `page` counts from 1.
 * `open` gets a product and the name of its index, `similar` a product.
 */
export function showColumns(columns, page, open, similar) {
  const first = (page - 1) * PAGE_SIZE;
  const names = namesOf(columns);
  const cardsOf = new Map(); // id of a product -> its cards
  const places = columns.map(({ answer }) => new Map((answer?.hits ?? []).map((hit, place) => [hit.id, place])));
  const pages = columns.map(({ answer }) => (answer?.hits ?? []).slice(first, first + PAGE_SIZE));
  const rows = Math.max(1, ...pages.map((hits) => hits.length));
  const made = columns.map((column, side) => {
    const other = { answer: columns[1 - side].answer, places: places[1 - side], side: 1 - side };
    const cards = pages[side].map((hit, row) => {
      const item = card(hit, (opened) => open(opened, column.info.name), similar, rankLine(hit, first + row, other, first));
      item.id = cardId(side, first + row);
      cardsOf.set(hit.id, [...(cardsOf.get(hit.id) ?? []), item]);
      return item;
    });
    return columnOf(column, names[side], side, cards, first, rows);
  });
  cardsOf.forEach(markTogether);
  fill(byId("compared"), ...made);
}

/** Marks both cards of a product while the pointer or the focus is on one of them. */
function markTogether(cards) {
  const mark = (on) => () => cards.forEach((each) => each.classList.toggle("marked", on));
  for (const each of cards.length > 1 ? cards : []) {
    for (const [kind, on] of [["pointerenter", true], ["focusin", true], ["pointerleave", false], ["focusout", false]]) each.addEventListener(kind, mark(on));
  }
}

/** How many products of the page of the first model are on that of the second. */
export function countShared(columns, page) {
  const [one, two] = columns.map(({ answer }) => (answer?.hits ?? []).slice((page - 1) * PAGE_SIZE, page * PAGE_SIZE).map((hit) => hit.id));
  return { shared: one.filter((id) => two.includes(id)).length, shown: Math.max(one.length, two.length) };
}

/** Names that tell the columns apart: of the models, or of the indexes where both have the same model. */
function namesOf(columns) {
  const models = columns.map(({ info }) => info.model);
  return models[0] === models[1] ? columns.map(({ info }) => info.name) : models;
}

const cardId = (side, place) => `compared-${side}-${place}`;

function columnOf({ info, answer, error }, name, side, cards, first, rows) {
  const predicted = answer?.predictedKeywords?.slice(0, 3).map((each) => each.keyword).join(", ");
  const section = element("section", { class: "column", "aria-labelledby": `column-${side}` },
    element("header", {},
      element("h2", { id: `column-${side}` }, name),
      element("p", {}, [info.name, info.version, answer && total(answer)].filter(Boolean).join(" · ")),
      answer?.correctedQuery ? element("p", {}, text("corrected", answer.correctedQuery)) : null,
      predicted ? element("p", {}, text("predicted") + predicted) : null),
    cards.length ? element("ol", { start: first + 1 }, ...cards) : element("p", { class: "nothing" }, error ? error.message || text("error") : text("empty")));
  section.style.setProperty("--rows", rows); // through the style object: the security policy bars style attributes
  return section;
}

function total(answer) {
  const count = answer.estimatedTotalHits;
  return count === 1 ? text("totalOne") : text(answer.totalIsExact ? "total" : "totalAbout", number(count));
}

/** The rank of a product here and in the other column; a button where it leads to a card of this page. */
function rankLine(hit, place, other, first) {
  const there = other.places.get(hit.id);
  const line = element("p", { class: "rank" }, element("b", {}, number(place + 1)), " ");
  if (!other.answer) return line;
  if (there === undefined) {
    const all = other.answer.hits.length === other.answer.estimatedTotalHits;
    line.append(element("span", { class: "absent" }, all ? text("absent") : text("notInFirst", number(other.answer.hits.length))));
    return line;
  }
  const label = text("rankThere", number(there + 1));
  const isShown = there >= first && there < first + PAGE_SIZE;
  line.append(isShown ? element("button", { type: "button", class: "link", click: () => goTo(cardId(other.side, there)) }, label) : label);
  return line;
}

function goTo(id) {
  const target = byId(id);
  target.scrollIntoView({ block: "center" });
  target.querySelector("h3 button").focus({ preventScroll: true });
}
