// Requests to the server. Errors are ApiError, with the code of the server or "offline".

const KEY = "api-key";
const pictures = new Map(); // address -> promise of a blob address, with an API key only

/** An error that the page shows; `code` is the server's. */
export class ApiError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Keeps an API key until the tab is closed. */
export const setKey = (key) => sessionStorage.setItem(KEY, key);

const headers = () => (sessionStorage.getItem(KEY) ? { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } : {});

async function request(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "");
  }
  if (response.ok) return response;
  const content = await response.json().catch(() => ({}));
  throw new ApiError(content.code ?? "internal", content.message ?? `HTTP ${response.status}`);
}

/** The results of a search; `picture` is a file or null. */
export async function search(parameters, picture, imageWeight, signal) {
  if (!picture) {
    const body = JSON.stringify(parameters);
    return (await request("/v1/search", { method: "POST", body, signal, headers: { "Content-Type": "application/json" } })).json();
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(parameters)) {
    if (name === "filter") form.append(name, value.map((any) => `(${any.join(" OR ")})`).join(" AND "));
    else if (Array.isArray(value)) for (const each of value) form.append(name, each);
    else form.append(name, value);
  }
  form.append("imageWeight", imageWeight);
  form.append("image", picture);
  return (await request("/v1/search", { method: "POST", body: form, signal })).json();
}

/** Completions of a text. */
export async function suggest(text, signal) {
  return (await (await request(`/v1/suggest?limit=8&q=${encodeURIComponent(text)}`, { signal })).json()).suggestions;
}

/** What the server searches: the first index, and the second one where the server has two. */
export async function indexInfos() {
  const first = await (await request("/v1/index")).json();
  const others = first.indexes.slice(1, 2).map(async (name) => (await request(`/v1/index?index=${encodeURIComponent(name)}`)).json());
  return [first, ...(await Promise.all(others))];
}

/** A product with its attributes. */
export const product = async (id) => (await request(`/v1/products/${encodeURIComponent(id)}`)).json();

/** Stores that a product was opened after a query; failures have no effect. */
export function click(query, productId, lang, index) {
  const body = JSON.stringify({ query, product: productId, lang, index });
  request("/v1/click", { method: "POST", body, headers: { "Content-Type": "application/json" }, keepalive: true }).catch(() => {});
}

/** Shows a picture of the server in an image; with an API key, which images cannot send, through a blob. */
export function showPicture(image, address) {
  if (!sessionStorage.getItem(KEY)) {
    image.src = address;
    return;
  }
  if (!pictures.has(address)) {
    pictures.set(address, request(address).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob)));
  }
  pictures.get(address).then((blob) => (image.src = blob), () => image.dispatchEvent(new Event("error")));
}
