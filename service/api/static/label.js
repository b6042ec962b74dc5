/** A few clips labelled by key press, so that a version can be measured and calibrated. */

import {
  App, EMOTIONS, Notice, Problem, Progress, clipNamed, download, html, open, percent, useContext,
  useEffect, useKept, useRef, useState,
} from "./parts.js";
import { zip } from "./zip.js";

const MOST = 40;

/** Clips whose answer changed come first, then others, evenly spaced. */
function chosen(clips, changed) {
  const first = changed.map(({ path }) => clipNamed(clips, path)).filter(Boolean);
  const found = new Set(first.slice(0, MOST / 2));
  const step = Math.max(1, clips.length / MOST);
  for (let at = 0; at < clips.length && found.size < MOST; at += step) found.add(clips[Math.floor(at)]);
  return [...found];
}

const quoted = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

export function Label({ job, clips, changed }) {
  const { t, client, askKey } = useContext(App);
  const [list] = useState(() => chosen(clips, changed));
  const [labels, setLabels] = useState(new Map());
  const [at, setAt] = useState(0);
  const [names, setNames] = useState([]); // a key means nothing before they are known
  const [sent, setSent] = useState(null);
  const [result, setResult] = useState(null);
  const [error, setError] = useState(null);
  const player = useRef();
  const box = useRef();
  useKept(labels.size > 0 && !result);

  useEffect(() => {
    client.send("GET", `models/${job.name}/${job.version}`).then(
      (version) => setNames(version.card.labels), () => setNames(EMOTIONS));
    box.current.focus();
  }, []);

  useEffect(() => {
    if (at >= list.length) return undefined;
    let url = "";
    open(list[at]).then((blob) => {
      url = URL.createObjectURL(blob);
      player.current.src = url;
      return player.current.play();
    }).catch(() => {});
    return () => URL.revokeObjectURL(url);
  }, [at]);

  const choose = (name) => {
    const clip = list[at];
    setLabels((now) => {
      const next = new Map(now);
      if (name) next.set(clip, name);
      else next.delete(clip);
      return next;
    });
    setAt(at + 1);
  };
  const key = (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || at >= list.length) return;
    const name = names[Number(event.key) - 1];
    if (name) choose(name);
    else if (event.key === "0") choose(null);
    else if (event.key === "Backspace" && at) setAt(at - 1);
    else if (event.key.toLowerCase() === "r") player.current.play().catch(() => {});
    else return;
    event.preventDefault();
  };
  const table = () => ["path,emotion",
    ...[...labels].map(([clip, name]) => `${quoted(clip.name)},${name}`)].join("\n") + "\n";

  const evaluate = async (apply) => {
    setError(null);
    setSent(0);
    try {
      const recordings = [];
      for (const [clip] of labels) recordings.push([clip.name, await open(clip)]);
      const archive = await zip([["metadata.csv", new Blob([table()])], ...recordings]);
      setResult(await client.evaluate(job.name, job.version, archive, { apply, onProgress: setSent }));
    } catch (caught) {
      setError(caught);
      askKey(caught);
    }
    setSent(null);
  };

  const over = at >= list.length;
  return html`<section class="label" tabindex="-1" ref=${box} onKeyDown=${key}
      aria-label=${t("label.begin")}>
    <p>${t("label.how")}</p>
    <p role="status">${!names.length ? t("loading") : over ? t("label.over", { count: labels.size })
      : t("label.at", { number: at + 1, count: list.length })}
      ${!over && html` <bdi class="quiet">${list[at].name}</bdi>`}</p>
    <audio ref=${player} controls hidden=${over} aria-label=${t("play")}></audio>
    <div class="keys">${names.map((name, index) => html`<button key=${name} disabled=${over}
        aria-pressed=${String(!over && labels.get(list[at]) === name)} onClick=${() => choose(name)}>
        <kbd>${index + 1}</kbd> ${t(`emotion.${name}`)}</button>`)}
      <button disabled=${over} onClick=${() => choose(null)}><kbd>0</kbd> ${t("label.skip")}</button>
      <button disabled=${!at} onClick=${() => setAt(at - 1)}><kbd>⌫</kbd> ${t("label.back")}</button></div>
    <p class="row">
      <button class="primary" disabled=${!labels.size || sent !== null} onClick=${() => evaluate(false)}>
        ${t("label.evaluate", { count: labels.size })}</button>
      <button disabled=${!labels.size} onClick=${() => download(new Blob([table()], { type: "text/csv" }),
        "metadata.csv")}>${t("label.save")}</button>
      ${sent !== null && html`<${Progress} label=${t("state.sending")} value=${sent < 1 ? sent : null} />`}
    </p>
    ${error && (error.code === "scope_missing"
      ? html`<${Notice} kind="error"><span lang="en" dir="ltr">${error.message}</span><//>`
      : html`<${Problem} error=${error} close=${() => setError(null)} />`)}
    ${result && html`<${Result} result=${result} apply=${() => evaluate(true)} />`}
  </section>`;
}

/** What the labels say, or the job that will; and a version calibrated on them, on request. */
function Result({ result, apply }) {
  const { t } = useContext(App);
  if (result.id) return html`<${Notice}>${t("label.job", { id: result.id })}<//>`;
  return html`<div role="status"><${Figures} found=${result} />
    ${result.bundle ? html`<p>${t("label.applied", { version: result.bundle })}</p>`
      : result.recalibrated && html`<p class="row"><button onClick=${apply}>${t("label.apply")}</button>
          <span class="quiet">${t("label.apply.hint")}</span></p>`}</div>`;
}

/** The figures of an evaluation with their intervals, now and after recalibration. */
export function Figures({ found }) {
  const { t } = useContext(App);
  const shown = (one) => (one
    ? `${percent(one.value)} (${percent(one.low)} – ${percent(one.high)})` : "–");
  return html`<table><caption>${t("label.result")}</caption>
    <thead><tr><th>${t("figure")}</th><th class="number">${t("figure.now")}</th>
      <th class="number">${t("figure.recalibrated")}</th></tr></thead>
    <tbody>${["wa", "uar", "ece", "answered_share"].map((name) => html`<tr key=${name}>
      <th scope="row">${t(`figure.${name}`)}</th><td class="number">${shown(found[name])}</td>
      <td class="number">${shown(found.recalibrated?.[name])}</td></tr>`)}</tbody></table>
    <p class="quiet">${t("figure.interval")}
      ${found.reason && html` <span lang="en" dir="ltr">${found.reason}</span>`}</p>`;
}
