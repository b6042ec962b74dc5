/** What the tabs share: small components, numbers in words, files that are dropped. */

import {
  createContext, h, html, render, useContext, useEffect, useMemo, useRef, useState,
} from "./vendor/preact-htm.module.js";

export { createContext, h, html, render, useContext, useEffect, useMemo, useRef, useState };

/** What every component may use: `{t, language, client, key, service, askKey, recognise}`. */
export const App = createContext(null);

export const EMOTIONS = ["angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise"];

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;

/** The same for CSS, which wants no space. */
export const width = (share) => `${100 * share}%`;

/** 75.25 s as 1:15.3. */
export function clock(seconds, digits = 1) {
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds - 60 * minutes).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return `${minutes}:${rest}`;
}

/** The colour of an emotion in this theme; for canvases, which know no variables. */
export const colour = (emotion) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${emotion ?? "none"}`).trim();

export const prefersDark = () => matchMedia("(prefers-color-scheme: dark)").matches;

/** A box with a sentence: `error` is read out at once, `info` and `wait` when there is time. */
export function Notice({ kind = "info", retry, close, children }) {
  const { t } = useContext(App);
  return html`<div class=${`notice ${kind}`} role=${kind === "error" ? "alert" : "status"}>
    <div>${children}</div>
    ${retry && html`<button onClick=${retry}>${t("again")}</button>`}
    ${close && html`<button onClick=${close}>${t("close")}</button>`}
  </div>`;
}

/** An error in the reader's language, with the service's own sentence, and a way on. */
export function Problem({ error, retry, close, children }) {
  const { t, askKey } = useContext(App);
  const known = t.has(`error.${error.code}`) ? t(`error.${error.code}`) : error.title;
  return html`<${Notice} kind="error" retry=${retry} close=${close}>
    <strong>${known || t("error.unknown")}</strong>
    ${error.status ? html` <span lang="en" dir="ltr">${error.message}</span>` : ""}
    ${error.retryAfterS ? html` ${t("error.retry_after", { seconds: error.retryAfterS })}` : ""}
    ${children}
    ${error.status === 401 && html` <button onClick=${() => askKey(error)}>${t("key.enter")}</button>`}
    ${error.requestId && html`<br /><small class="quiet">${t("request_id")}
      <code>${error.requestId}</code></small>`}
  <//>`;
}

export function Progress({ value, label }) {
  return html`<label class="progress"><span>${label}</span>
    <progress max="1" value=${value ?? undefined} aria-label=${label}></progress></label>`;
}

/** The name of an emotion with its colour; null is "not sure". */
export function Emotion({ name, reasons = [] }) {
  const { t } = useContext(App);
  const words = reasons.map((reason) => t(`reason.${reason}`)).join(", ");
  return html`<span class="emotion"><i class=${`dot ${name ?? "none"}`}></i>${
    name ? t(`emotion.${name}`) : words || t("reason.low_confidence")}</span>`;
}

/** The probability of each emotion as a bar, the largest first. */
export function Shares({ scores, emotion, label }) {
  const { t } = useContext(App);
  const sorted = Object.entries(scores).sort((a, b) => b[1] - a[1]);
  return html`<table class="shares"><caption class="unseen">${label ?? t("shares")}</caption>
    <tbody>${sorted.map(([name, share]) => html`<tr key=${name} class=${name === emotion ? "first" : ""}>
      <th scope="row">${t(`emotion.${name}`)}</th>
      <td class="track"><i class=${name} style=${{ width: width(share) }}></i></td>
      <td class="number">${percent(share, 1)}</td></tr>`)}</tbody></table>`;
}

/** What an answer says in a sentence. */
export function Outcome({ answer }) {
  const { t } = useContext(App);
  return html`<p class="outcome"><${Emotion} name=${answer.emotion} reasons=${answer.reasons} />
    ${answer.emotion && html` <strong class="number">${percent(answer.confidence)}</strong>`}
    ${answer.emotion && answer.reasons.length > 0 && html` <span class="quiet">${
      answer.reasons.map((reason) => t(`reason.${reason}`)).join(", ")}</span>`}
    <br /><small class="quiet">${t(answer.calibrated ? "calibrated" : "not_calibrated")}
      ${" · "}${t("out_of_domain", { share: percent(answer.out_of_domain) })}
      ${answer.model && html` · ${t("answered_by")} <code>${answer.model.name}/${answer.model.version}</code>
        ${answer.model.language !== "und" && ` (${answer.model.language})`}`}</small></p>`;
}

const CODES =
  "af am ar az be bg bn bs ca cs cy da de el en eo es et eu fa fi fil fr ga gl gu ha he hi hr hu hy " +
  "id ig is it ja jv ka kk km kn ko ku ky lo lt lv mg mi mk ml mn mr ms mt my nb ne nl nn no ny om " +
  "or pa pl ps pt pt-BR ro ru rw sd si sk sl sm sn so sq sr st su sv sw ta te tg th ti tk tl tn tr " +
  "tt ug uk ur uz vi wo xh yi yo yue zh zh-TW zu";

function namesIn(language) {
  const names = new Intl.DisplayNames([language], { type: "language" });
  return CODES.split(" ").map((code) => [code, names.of(code)]).sort((a, b) =>
    a[1].localeCompare(b[1], language));
}

/** The name of a language by its tag. */
export function languageName(tag, language) {
  try {
    return new Intl.DisplayNames([language], { type: "language" }).of(tag);
  } catch {
    return tag;
  }
}

/** A language by name or tag; `choose` gets the tag, "" for none, or what was typed. */
export function LanguageField({ id, value, choose, hint }) {
  const { t, language } = useContext(App);
  const names = useMemo(() => namesIn(language), [language]);
  const english = useMemo(() => namesIn("en"), []);
  const [text, setText] = useState("");
  const typed = (event) => {
    const given = event.target.value;
    const wanted = given.trim().toLowerCase();
    const found = [...names, ...english].find(([code, name]) =>
      [code.toLowerCase(), name.toLowerCase()].includes(wanted));
    setText(given);
    choose(found ? found[0] : given.trim());
  };
  return html`<label>${t("field.language")}
    <input list=${`${id}-list`} value=${text} onInput=${typed} placeholder=${t("field.language.any")}
      aria-describedby=${hint && `${id}-hint`} autocomplete="off" />
    <datalist id=${`${id}-list`}>${names.map(([code, name]) =>
      html`<option value=${name}>${code}</option>`)}</datalist>
    ${hint && html`<small class="quiet" id=${`${id}-hint`}>${hint}
      ${value && html` <code>${value}</code>`}</small>`}</label>`;
}

/** The files of a drop, those in dropped folders among them, each with its path. */
async function dropped(transfer) {
  const found = [];
  const read = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push(withPath(file, entry.fullPath));
    } else {
      const reader = entry.createReader();
      for (;;) {
        const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!some.length) break;
        for (const one of some) await read(one);
      }
    }
  };
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  for (const entry of entries) await read(entry);
  return found;
}

const withPath = (file, path) => Object.assign(file, { path: path.replace(/^\//, "") });

/** The path of a file in what was dropped, or its name. */
export const pathOf = (file) => file.path || file.webkitRelativePath || file.name;

/** Find the dropped recording that a report names. */
export const clipNamed = (clips, path) => clips?.find(({ name }) =>
  name === path || name.endsWith(`/${path}`) || path.endsWith(`/${name}`));

/** A dropped recording as a Blob; members of a zip are unpacked only now. */
export const open = (clip) => (clip.read ? clip.read() : Promise.resolve(clip));

/** A place to drop files and folders, with buttons for both. */
export function Drop({ onFiles, label, accept, children }) {
  const { t } = useContext(App);
  const [over, setOver] = useState(false);
  const files = useRef();
  const folder = useRef();
  const give = (list) => {
    const shown = [...list].filter((file) => !file.name.startsWith("."));
    if (shown.length) onFiles(shown);
  };
  const picked = (event) => {
    give(event.target.files);
    event.target.value = "";
  };
  const drop = async (event) => {
    event.preventDefault();
    setOver(false);
    give(await dropped(event.dataTransfer));
  };
  return html`<div class=${`drop ${over ? "over" : ""}`} onDrop=${drop}
      onDragOver=${(e) => { e.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}>
    <p>${label}</p>
    <p class="row">
      <button class="primary" onClick=${() => files.current.click()}>${t("choose.files")}</button>
      <button onClick=${() => folder.current.click()}>${t("choose.folder")}</button>
      ${children}
    </p>
    <input type="file" multiple hidden ref=${files} accept=${accept} onChange=${picked}
      aria-label=${t("choose.files")} />
    <input type="file" multiple hidden webkitdirectory ref=${folder} onChange=${picked}
      aria-label=${t("choose.folder")} />
  </div>`;
}

/** Let the browser save a Blob. */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Ask before the page is left while something would be lost. */
export function useKept(unsaved) {
  useEffect(() => {
    if (!unsaved) return undefined;
    const ask = (event) => event.preventDefault();
    window.addEventListener("beforeunload", ask);
    return () => window.removeEventListener("beforeunload", ask);
  }, [unsaved]);
}

/** A level from 0 to 1 as a bar; screen readers are not told of each change. */
export const Level = ({ value }) => html`<div class="level" aria-hidden="true">
  <i style=${{ width: width(Math.min(1, Math.sqrt(value))) }}></i></div>`;
