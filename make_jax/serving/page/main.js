// The page: state in the address, a search after each change, and what it returns.

import * as api from "./api.js";
import { byId, element, fill } from "./dom.js";
import { countShared, showColumns } from "./compare.js";
import { showFacets, shownValue } from "./facets.js";
import { picture, showQueryPicture, watchPictures } from "./picture.js";
import { card, showDetail } from "./products.js";
import { addressOf, comparedParameters, emptyState, hasFilters, lastPage, readState, searchParameters } from "./state.js";
import { closeSuggestions, suggestionKey, updateSuggestions } from "./suggestions.js";
import { currentLanguage, number, preferredLanguage, setLanguage, text } from "./texts.js";

const SHOWN_KEYWORDS = 6; // of those that the model predicts
const TYPING_MS = 200;
const SLOW_MS = 300;
const VERY_SLOW_MS = 4000;
const input = byId("q");
let state = readState();
let infos = null; // of the first index, and of the second one where the server has two
let running = null;
let typing = 0;
let likeTitle = "";

/** Changes the state, keeps it in the history, and searches. */
function change(alter, { replace = false } = {}) {
  state.page = 1;
  alter(state);
  const address = addressOf(state, currentLanguage());
  if (address !== location.pathname + location.search) history[replace ? "replaceState" : "pushState"](null, "", address);
  return run();
}

/** Searches for the state and shows the answer, unless another search has begun meanwhile. */
async function run() {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  const timers = [setTimeout(() => busy(true), SLOW_MS), setTimeout(() => status(text("slow")), VERY_SLOW_MS)];
  showQueryPicture(Boolean(state.q.trim()), run);
  try {
    infos ??= await api.indexInfos();
    const [answer, second, ...others] = await Promise.all(requests(signal));
    if (answer.indexVersion !== infos[0].version) infos = await api.indexInfos(); // the server has switched
    if (!signal.aborted) show(answer, second, others);
  } catch (error) {
    if (!signal.aborted && error.name !== "AbortError") showError(error);
  } finally {
    timers.forEach(clearTimeout);
    if (!signal.aborted) busy(false);
  }
}

const comparing = () => state.compare && infos.length > 1;

/**
 * The search; that of the second index or null; and one without its own filter for each filtered attribute: other
 * values of it keep their counts.
 */
function requests(signal) {
  const send = (parameters) => api.search(parameters, picture.file, picture.weight, signal);
  const filtered = [...Object.keys(state.values), ...Object.keys(state.ranges)];
  const [first, second] = infos.map((info) => comparedParameters(state, info.name));
  const searches = comparing()
    ? [send(first), send({ ...second, facets: [] }).catch((error) => ({ error }))] // its column shows the error
    : [send(searchParameters(state)), null];
  return [...searches, ...filtered.map((name) => send({ ...searchParameters(state, name), limit: 0, offset: 0, explain: false, facets: [name] }))];
}

function show(answer, second, others) {
  byId("key").hidden = true;
  const distribution = { ...answer.facetDistribution };
  const stats = { ...answer.facetStats };
  for (const other of others) {
    Object.assign(distribution, other.facetDistribution);
    Object.assign(stats, other.facetStats);
  }
  const total = Math.max(answer.estimatedTotalHits, second?.estimatedTotalHits ?? 0);
  if (second) showTwo(answer, second);
  else showOne(answer);
  byId("grid").hidden = Boolean(second);
  byId("compared").hidden = !second || (!total && !second.error); // the message states it
  showFacets(state, infos[0].attributes, distribution, stats, change);
  showChips(Boolean(answer.correctedQuery || second?.correctedQuery));
  showSwitch();
  showServed(answer);
  showSort();
  showPages(total);
  message(total ? null : emptyMessage());
  document.title = state.q ? `${state.q} – ${text("search")}` : text("search");
}

function counted(answer) {
  const total = answer.estimatedTotalHits;
  return total === 1 ? text("totalOne") : text(answer.totalIsExact ? "total" : "totalAbout", number(total));
}

function showOne(answer) {
  status(answer.correctedQuery ? `${counted(answer)}. ${text("corrected", answer.correctedQuery)}` : counted(answer));
  showPredicted(answer.predictedKeywords ?? []);
  fill(byId("compared"));
  fill(byId("grid"), ...answer.hits.map((hit) => card(hit, open, similar)));
}

function showTwo(answer, second) {
  const columns = [{ info: infos[0], answer }, { info: infos[1], ...(second.error ? second : { answer: second }) }];
  const { shared, shown } = countShared(columns, state.page);
  status(second.error ? counted(answer) : text("shared", number(shared), number(shown)));
  showPredicted([]); // each column has its own
  fill(byId("grid"));
  showColumns(columns, state.page, open, similar);
}

/** The switch between one model and two. */
function showSwitch() {
  const button = byId("compare");
  button.hidden = infos.length < 2;
  button.setAttribute("aria-pressed", String(comparing()));
}

/** What was searched, and how fast; of two models, the columns show it. */
function showServed(answer) {
  const [info] = infos;
  input.placeholder = text("searchAmong", number(info.numberOfDocuments));
  byId("choose").hidden = !acceptsImages();
  byId("served").hidden = comparing();
  byId("served").textContent = text("served", info.model, info.version, number(info.numberOfDocuments), number(answer.processingTimeMs));
}

function emptyMessage() {
  const clear = element("button", { type: "button", class: "primary", click: clearFilters }, text("clear"));
  return [element("h2", {}, text("empty")), element("p", {}, text("emptyAdvice")), hasFilters(state) ? clear : null];
}

const clearFilters = () => change((changed) => Object.assign(changed, { values: {}, ranges: {}, minScore: "" }));

function showError(error) {
  status("");
  fill(byId("grid"));
  fill(byId("compared"));
  for (const name of ["pages", "predicted", "served"]) byId(name).hidden = true;
  if (error.code === "missing_authorization_header" || error.code === "invalid_api_key") {
    byId("key").hidden = false;
    message(error.code === "invalid_api_key" ? [element("p", {}, text("keyWrong"))] : null, true);
    byId("key-input").focus();
    return;
  }
  const known = { offline: "offline", too_many_requests: "tooMany", too_many_search_requests: "tooMany" }[error.code];
  const detail = known || !error.message ? null : element("p", {}, error.message);
  const retry = element("button", { type: "button", class: "primary", id: "retry", click: run }, text("retry"));
  message([element("h2", {}, text(known ?? "error")), detail, retry], true);
}

function message(children, isError = false) {
  const box = byId("message");
  box.hidden = !children;
  box.classList.toggle("error", isError);
  fill(box, ...(children ?? []));
}

const status = (line) => { byId("status").textContent = line; };

function busy(on) {
  byId("progress").hidden = !on;
  byId("grid").setAttribute("aria-busy", String(on));
}

function showPredicted(found) {
  const line = byId("predicted");
  line.hidden = !found.length;
  line.textContent = text("predicted") + found.slice(0, SHOWN_KEYWORDS).map((each) => `${each.keyword} ${Math.round(100 * each.probability)} %`).join(", ");
}

function showChips(corrected = false) {
  const chips = [];
  if (corrected) chips.push(element("button", { type: "button", class: "chip", click: () => change((changed) => { changed.exact = true; }) }, text("exact", state.q)));
  const add = (label, alter) => chips.push(element("button", { type: "button", class: "chip", "aria-label": text("remove", label), click: () => { change(alter); byId("results").focus(); } }, `${label} ✕`));
  if (state.like) add(text("like", likeTitle || state.like), (changed) => { changed.like = ""; });
  for (const [name, values] of Object.entries(state.values)) {
    for (const value of values) add(`${name}: ${shownValue(value)}`, (changed) => {
      changed.values[name] = changed.values[name].filter((each) => each !== value);
      if (!changed.values[name].length) delete changed.values[name];
    });
  }
  for (const [name, range] of Object.entries(state.ranges)) add(`${name}: ${range.min || "…"} – ${range.max || "…"}`, (changed) => { delete changed.ranges[name]; });
  if (state.minScore !== "") add(`${text("minScore")}: ${state.minScore}`, (changed) => { changed.minScore = ""; });
  fill(byId("chips"), ...chips);
}

function showSort() {
  const numbers = Object.entries(infos[0].attributes).filter(([, kind]) => kind === "number").map(([name]) => name);
  const options = [["", text("best")], ...numbers.flatMap((name) => [[`${name}:asc`, text("lowest", name)], [`${name}:desc`, text("highest", name)]])];
  const select = byId("sort");
  fill(select, ...options.map(([value, label]) => element("option", { value, selected: value === state.sort }, label)));
  select.parentElement.hidden = options.length === 1;
}

function showPages(total) {
  const last = lastPage(total, comparing());
  const go = (to) => change((changed) => { changed.page = to; }).then(() => { byId("results").focus({ preventScroll: true }); scrollTo(0, 0); });
  const button = (name, to, possible) => element("button", { type: "button", disabled: !possible, click: () => go(to) }, text(name));
  const pages = byId("pages");
  pages.hidden = last <= 1;
  fill(pages, button("previous", state.page - 1, state.page > 1), element("span", {}, text("page", number(state.page), number(last))), button("next", state.page + 1, state.page < last));
}

function open(hit, index) {
  if (infos[0].acceptsClicks && state.q.trim()) api.click(state.q, hit.id, currentLanguage(), index);
  showDetail(hit, similar);
}

function similar(hit) {
  likeTitle = hit.title;
  picture.file = null;
  input.value = "";
  change((changed) => Object.assign(changed, emptyState(), { like: hit.id })).then(() => byId("results").focus({ preventScroll: true }));
  scrollTo(0, 0);
}

function searchText(value) {
  clearTimeout(typing);
  input.value = value;
  closeSuggestions();
  change((changed) => Object.assign(changed, { exact: changed.exact && value === changed.q, q: value, like: "" }));
}

/** Takes the state from the address: at the start, and when the reader goes back. */
function load() {
  state = readState();
  input.value = state.q;
  closeSuggestions();
  if (state.like && !likeTitle) api.product(state.like).then((found) => { likeTitle = found.title; showChips(); }, () => {});
  if (!state.like) likeTitle = "";
  return run();
}

function translate(language) {
  setLanguage(language);
  const button = byId("language");
  button.textContent = currentLanguage() === "en" ? "中文" : "English";
  button.lang = currentLanguage() === "en" ? "zh" : "en";
}

input.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    updateSuggestions(searchText);
    change((changed) => Object.assign(changed, { q: input.value, like: "", exact: false }), { replace: true });
  }, TYPING_MS);
});
input.addEventListener("keydown", (event) => { if (suggestionKey(event, searchText)) event.preventDefault(); });
input.addEventListener("blur", closeSuggestions);
byId("search").addEventListener("submit", (event) => { event.preventDefault(); searchText(input.value); });
byId("sort").addEventListener("change", (event) => change((changed) => { changed.sort = event.target.value; }));
byId("compare").addEventListener("click", () => change((changed) => { changed.compare = !changed.compare; }));
byId("home").addEventListener("click", (event) => {
  event.preventDefault();
  picture.file = null;
  input.value = "";
  change((changed) => Object.assign(changed, emptyState()));
  input.focus();
});
byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  api.setKey(byId("key-input").value.trim());
  message(null);
  run();
});
byId("language").addEventListener("click", () => {
  translate(currentLanguage() === "en" ? "zh" : "en");
  const address = new URL(location.href);
  address.searchParams.set("lang", currentLanguage());
  history.replaceState(null, "", address);
  run();
});
const acceptsImages = () => !infos || infos.some((each) => each.acceptsImages);
watchPictures(acceptsImages, () => { state.page = 1; state.like = ""; closeSuggestions(); run(); }, (line) => message([element("p", {}, line)], true));
addEventListener("popstate", load);
if (matchMedia("(max-width: 50rem)").matches) byId("filters").open = false; // over the results: there is no place beside them
translate(preferredLanguage());
load();
