// The filters: values of attributes with counts, ranges of numbers, the least score.

import { byId, element, fill } from "./dom.js";
import { number, text } from "./texts.js";

const FEW = 8; // values of an attribute at first
const MANY = 60; // after "more"
const FINDABLE = 20; // values from which the list has a box to find one
const expanded = new Set();
const sought = new Map(); // attribute -> text in that box

/**
 * Shows the filters of an answer. `change` gets a function that changes the state.
 * `distribution` has, for an attribute that is filtered, the counts without that filter.
 */
export function showFacets(state, attributes, distribution, stats, change) {
  const focused = document.activeElement?.id;
  const names = Object.keys(attributes).filter((name) => distribution[name] || state.values[name] || state.ranges[name]);
  const groups = names.map((name) =>
    attributes[name] === "number" && (stats[name] || state.ranges[name])
      ? range(name, state.ranges[name], stats[name], change)
      : values(name, state.values[name] ?? [], distribution[name] ?? {}, change));
  fill(byId("facets"), ...groups, leastScore(state, change));
  if (!names.length && byId("columns").classList.replace("beside", "wide")) byId("filters").open = state.minScore !== ""; // the least score alone needs no column
  if (focused) byId(focused)?.focus(); // the reader who works with the keyboard stays where they were
}

function values(name, selected, counts, change) {
  const found = Object.entries(counts);
  const missing = selected.filter((value) => !(value in counts)).map((value) => [value, 0]);
  const isSelected = ([value]) => selected.includes(value);
  const ordered = [...missing, ...found.filter(isSelected), ...found.filter((each) => !isSelected(each))];
  if (!ordered.length) return null;
  const row = ([value, count]) =>
    element("label", { class: "value" },
      element("input", { type: "checkbox", id: `facet-${name}-${value}`, checked: selected.includes(value), change: (event) => change((state) => toggle(state, name, value, event.target.checked)) }),
      element("span", { class: "name" }, shownValue(value)),
      element("span", { class: "count" }, number(count)));
  const list = element("div");
  const draw = () => { // the list alone: a box that is typed into stays
    const part = sought.get(name)?.toLowerCase();
    const matching = part ? ordered.filter(([value]) => shownValue(value).toLowerCase().includes(part)) : ordered;
    const shown = matching.slice(0, expanded.has(name) ? MANY : Math.max(FEW, part ? 0 : selected.length));
    fill(list, ...shown.map(row), matching.length > FEW ? more(name, matching.length, draw, list) : null);
  };
  draw();
  return element("fieldset", {}, element("legend", {}, name), ordered.length < FINDABLE ? null : findBox(name, draw), list);
}

function more(name, count, draw, list) {
  const isOpen = expanded.has(name);
  const id = `more-${name}`;
  const click = () => {
    isOpen ? expanded.delete(name) : expanded.add(name);
    draw();
    list.querySelectorAll("input, button")[FEW].focus(); // the first further value, or the button
  };
  return element("button", { type: "button", class: "link", id, "aria-expanded": String(isOpen), click }, isOpen ? text("less") : text("more", number(count - FEW)));
}

function findBox(name, draw) {
  const label = text("find", name);
  const input = (event) => { sought.set(name, event.target.value); draw(); };
  return element("input", { type: "search", class: "find", id: `find-${name}`, value: sought.get(name) ?? "", "aria-label": label, placeholder: label, input });
}

/** A value as the page shows it. */
export const shownValue = (value) => (value === "true" ? text("yes") : value === "false" ? text("no") : value);

function toggle(state, name, value, on) {
  const rest = (state.values[name] ?? []).filter((each) => each !== value);
  if (on) rest.push(value);
  if (rest.length) state.values[name] = rest;
  else delete state.values[name];
}

function range(name, current, stats, change) {
  const field = (side, label) =>
    element("label", {}, label, element("input", {
      type: "number", step: "any", id: `range-${side}-${name}`, value: current?.[side] ?? "",
      placeholder: stats ? number(stats[side], 2) : null,
      change: (event) => change((state) => setRange(state, name, side, event.target.value)),
    }));
  return element("fieldset", {}, element("legend", {}, name), element("div", { class: "range" }, field("min", text("from")), field("max", text("to"))));
}

function setRange(state, name, side, value) {
  const limits = { min: "", max: "", ...state.ranges[name] };
  limits[side] = value === "" || !Number.isFinite(Number(value)) ? "" : String(Number(value));
  if (limits.min === "" && limits.max === "") delete state.ranges[name];
  else state.ranges[name] = limits;
}

function leastScore(state, change) {
  const input = element("input", {
    type: "number", step: "0.05", id: "least-score", value: state.minScore,
    change: (event) => change((changed) => { changed.minScore = event.target.value === "" ? "" : String(Number(event.target.value)); }),
  });
  return element("fieldset", {}, element("legend", {}, text("score")), element("div", { class: "range" }, element("label", {}, text("minScore"), input)));
}
