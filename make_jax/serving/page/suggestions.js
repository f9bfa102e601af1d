// The list of suggestions below the search box: a combobox as the ARIA Authoring Practices describe it.

import { suggest } from "./api.js";
import { byId, element, fill } from "./dom.js";

const input = byId("q");
const list = byId("suggestions");
let chosen = -1;
let running = null;

/** Hides the list, and drops answers that are still to come. */
export function closeSuggestions() {
  running?.abort();
  show([], () => {});
}

/** Lists suggestions for the text in the box; `choose` gets the chosen one. */
export async function updateSuggestions(choose) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const typed = input.value.trim();
  if (!typed) return show([], choose);
  try {
    const texts = await suggest(typed, signal);
    if (!signal.aborted && document.activeElement === input) show(texts.filter((each) => each !== typed), choose);
  } catch {
    if (!signal.aborted) show([], choose); // results show the error
  }
}

/** Moves through the list with the arrow keys; whether the key was used. Enter chooses, Escape closes. */
export function suggestionKey(event, choose) {
  const options = [...list.children];
  if (list.hidden || !options.length) return false;
  if (event.key === "ArrowDown") select((chosen + 2) % (options.length + 1) - 1);
  else if (event.key === "ArrowUp") select((chosen + 1 + options.length) % (options.length + 1) - 1);
  else if (event.key === "Escape") closeSuggestions();
  else if (event.key === "Enter" && chosen >= 0) choose(options[chosen].textContent);
  else return false;
  return true;
}

function show(texts, choose) {
  chosen = -1;
  const options = texts.map((each, place) =>
    element("li", { role: "option", id: `suggestion-${place}`, "aria-selected": "false", mousedown: (event) => { event.preventDefault(); choose(each); } }, each));
  fill(list, ...options);
  list.hidden = !texts.length;
  input.setAttribute("aria-expanded", String(texts.length > 0));
  input.removeAttribute("aria-activedescendant");
}

function select(place) {
  chosen = place;
  [...list.children].forEach((each, at) => each.setAttribute("aria-selected", String(at === place)));
  if (place < 0) input.removeAttribute("aria-activedescendant");
  else input.setAttribute("aria-activedescendant", `suggestion-${place}`);
}
