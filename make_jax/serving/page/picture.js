// The picture that is searched for: chosen, dropped or pasted.

import { byId, element, fill } from "./dom.js";
import { text } from "./texts.js";

const TYPES = ["image/jpeg", "image/png", "image/webp"];
export const picture = { file: null, weight: 0.5 };
let address = "";

/** Lets the reader choose, drop and paste pictures; `change` is called after each, `refuse` with a message. */
export function watchPictures(accepts, change, refuse) {
  const take = (file) => {
    if (!file) return;
    if (!accepts()) return refuse(text("noImages"));
    if (!TYPES.includes(file.type)) return refuse(text("pictureType"));
    picture.file = file;
    change();
  };
  byId("choose").addEventListener("click", () => byId("file").click());
  byId("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
  document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
  const drop = byId("drop");
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  document.addEventListener("dragenter", (event) => { if (hasFiles(event)) { event.preventDefault(); drop.hidden = false; } });
  document.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.hidden = true; });
  document.addEventListener("drop", (event) => {
    drop.hidden = true;
    if (!hasFiles(event)) return;
    event.preventDefault(); // the browser would open the picture
    take(event.dataTransfer.files[0]);
  });
}

/** Shows the picture with its weight; `change` is called when either changes. */
export function showQueryPicture(hasText, change) {
  const box = byId("picture");
  if (address) URL.revokeObjectURL(address);
  address = "";
  box.hidden = !picture.file;
  if (!picture.file) return fill(box);
  address = URL.createObjectURL(picture.file);
  const slider = element("input", { type: "range", min: "0", max: "1", step: "0.1", value: String(picture.weight), change: (event) => { picture.weight = Number(event.target.value); change(); } });
  fill(box,
    element("img", { src: address, alt: text("pictureAlt"), error: (event) => event.target.remove() }),
    element("span", {}, text("pictureQuery")),
    hasText ? element("label", {}, text("imageWeight"), slider) : null,
    element("button", { type: "button", id: "remove-picture", click: () => { picture.file = null; change(); byId("q").focus(); } }, text("remove", text("picture"))));
}
