// What is searched for, and its form in the address of the page, which can be shared. A picture is not part of it.

export const PAGE_SIZE = 24;

const COMPARED_DEPTH = 100; // results of each model in which a product of the other is looked for
const MAX_LIMIT = 1000; // results that the server returns at most

/** A state without query and filters. */
export const emptyState = () => ({ q: "", like: "", values: {}, ranges: {}, minScore: "", sort: "", exact: false, page: 1 });

/** The state that the address of the page holds. */
export function readState() {
  const state = { ...emptyState(), compare: false };
  for (const [name, value] of new URLSearchParams(location.search)) {
    if (name === "q") state.q = value.slice(0, 1000);
    else if (name === "like") state.like = value;
    else if (name === "sort") state.sort = value;
    else if (name === "score") state.minScore = asNumber(value);
    else if (name === "exact") state.exact = true;
    else if (name === "compare") state.compare = true;
    else if (name === "page") state.page = Math.min(10000, Math.max(1, Number.parseInt(value, 10) || 1));
    else if (name.startsWith("f.")) (state.values[name.slice(2)] ??= []).push(value);
    else if (name.startsWith("min.")) (state.ranges[name.slice(4)] ??= { min: "", max: "" }).min = asNumber(value);
    else if (name.startsWith("max.")) (state.ranges[name.slice(4)] ??= { min: "", max: "" }).max = asNumber(value);
  }
  return state;
}

/** The address of a state. */
export function addressOf(state, language) {
  const query = new URLSearchParams();
  if (state.q) query.set("q", state.q);
  if (state.like) query.set("like", state.like);
  for (const [name, values] of Object.entries(state.values)) for (const value of values) query.append(`f.${name}`, value);
  for (const [name, range] of Object.entries(state.ranges)) {
    if (range.min !== "") query.set(`min.${name}`, range.min);
    if (range.max !== "") query.set(`max.${name}`, range.max);
  }
  if (state.minScore !== "") query.set("score", state.minScore);
  if (state.sort) query.set("sort", state.sort);
  if (state.exact) query.set("exact", "1");
  if (state.compare) query.set("compare", "1");
  if (state.page > 1) query.set("page", state.page);
  if (language !== "en" || new URLSearchParams(location.search).has("lang")) query.set("lang", language);
  const text = query.toString();
  return text ? `/?${text}` : "/";
}

/** Whether a state filters. */
export const hasFilters = (state) =>
  state.minScore !== "" || Object.keys(state.values).length > 0 || Object.keys(state.ranges).length > 0;

/** The parameters of a search. `without` is an attribute whose own filter is left out, for the counts of its values. */
export function searchParameters(state, without = null) {
  const filter = [];
  for (const [name, values] of Object.entries(state.values)) {
    if (name !== without && values.length) filter.push(values.map((value) => `${quoted(name)} = ${quoted(value)}`));
  }
  for (const [name, range] of Object.entries(state.ranges)) {
    if (name === without) continue;
    if (range.min !== "") filter.push([`${quoted(name)} >= ${range.min}`]);
    if (range.max !== "") filter.push([`${quoted(name)} <= ${range.max}`]);
  }
  const parameters = { q: state.q, filter, limit: PAGE_SIZE, offset: (state.page - 1) * PAGE_SIZE, explain: true, facets: ["*"] };
  if (state.like) parameters.like = [state.like];
  if (state.exact) parameters.correct = false;
  if (state.sort) parameters.sort = [state.sort];
  if (state.minScore !== "") parameters.rankingScoreThreshold = Number(state.minScore);
  return parameters;
}

/** The parameters of a search of one of two models: the first results, in which both are compared. */
export const comparedParameters = (state, index) => ({
  ...searchParameters(state), index, offset: 0, limit: Math.min(MAX_LIMIT, Math.max(COMPARED_DEPTH, state.page * PAGE_SIZE)),
});

/** The last page of results; of two models, as far as both are compared. */
export const lastPage = (total, comparing) => Math.min(comparing ? Math.floor(MAX_LIMIT / PAGE_SIZE) : 10000, Math.ceil(total / PAGE_SIZE));

const quoted = (text) => `"${text.replace(/["\\]/g, "\\$&")}"`;

function asNumber(value) {
  const parsed = Number.parseFloat(value);
  return Number.isFinite(parsed) ? String(parsed) : "";
}
