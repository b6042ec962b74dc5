/** The tab Adapt: recordings without labels in; a job to watch; its report, and what to do then. */

import { hasEnded, newId } from "../nnpm.js";
import {
  App, Drop, LanguageField, Notice, Problem, Progress, html, languageName, pathOf, useContext,
  useEffect, useRef, useState,
} from "./parts.js";
import { Report } from "./report.js";
import { isZip, unzip } from "./zip.js";

const ARCHIVE = /\.(zip|tar|tgz|tar\.gz|tar\.zst|tzst)$/i;
const FEWEST = 20;
const LISTED = 20;
/** Recordings that were dropped in this tab, by the id of their job: they play from here. */
const CLIPS = new Map();

export function Adapt({ shown }) {
  const { t, client, askKey } = useContext(App);
  const [jobs, setJobs] = useState(null);
  const [error, setError] = useState(null);
  const [current, setCurrent] = useState(null);

  const list = () => client.send("GET", `adapt?limit=${LISTED}`).then(
    (found) => {
      setJobs(found.jobs);
      setError(null);
    },
    (caught) => {
      setError(caught);
      askKey(caught);
    },
  );
  useEffect(() => {
    if (shown) list();
  }, [shown, client]);

  const started = (job, clips) => {
    if (clips) CLIPS.set(job.id, clips);
    setCurrent(job.id);
    list();
  };
  const update = (job) => setJobs((now) =>
    now?.map((one) => (one.id === job.id ? { ...one, ...job } : one)));
  const chosen = jobs?.find((job) => job.id === current);

  return html`
    <h2 class="unseen">${t("tab.adapt")}</h2>
    <p>${t("adapt.what")}</p>
    ${error && (error.code === "scope_missing"
      ? html`<${Notice} kind="error">${t("scope.missing", { scope: "adapt" })}<//>`
      : html`<${Problem} error=${error} retry=${list} />`)}
    ${error?.code !== "scope_missing" && html`<${Request} started=${started} />`}
    ${jobs?.length > 0 && html`<${Jobs} jobs=${jobs} current=${current} choose=${setCurrent} />`}
    ${chosen && html`<${Job} key=${chosen.id} job=${chosen} clips=${CLIPS.get(chosen.id)}
      update=${update} />`}`;
}

/** Files under names that no two of them share: the service keeps no folders of single files. */
function named(files) {
  const names = files.map((file) => file.name);
  if (new Set(names).size === names.length) return files;
  return files.map((file) =>
    new File([file], pathOf(file).replaceAll("/", "_"), { type: file.type }));
}

function Request({ started }) {
  const { t, client, service, askKey } = useContext(App);
  const [files, setFiles] = useState([]);
  const [folders, setFolders] = useState([]);
  const [folder, setFolder] = useState("");
  const [language, setLanguage] = useState("");
  const [known, setKnown] = useState([]);
  const [emotions, setEmotions] = useState([]);
  const [channels, setChannels] = useState("mix");
  const [labels, setLabels] = useState(null);
  const [keepAudio, setKeepAudio] = useState(false);
  const [sent, setSent] = useState(null);
  const [error, setError] = useState(null);
  const control = useRef(null);
  const archive = files.length === 1 && ARCHIVE.test(files[0].name) ? files[0] : null;
  // Sent again unchanged, for a lost connection, it is the same request; changed, it is another.
  const repeat = useRef({ of: "", key: "" });

  useEffect(() => {
    client.send("GET", "adapt/folders").then(
      (found) => setFolders(found.roots.flatMap(({ path, folders: inside }) => [path, ...inside])),
      () => setFolders([]),
    );
    client.send("GET", "models/default").then(async (model) => {
      const detail = await client.send("GET", `models/default/${model.versions.at(-1)}`);
      setKnown(detail.card.labels);
    }).catch(() => setKnown([]));
  }, [client]);

  const send = async () => {
    setError(null);
    setSent(0);
    control.current = new AbortController();
    const recordings = archive ? [] : named(files);
    const fields = {
      ...(language ? { language } : {}),
      ...(emotions.length ? { emotions } : {}),
      ...(channels === "mix" ? {} : { channels }),
      ...(labels && !folder ? { labels } : {}),
      ...(keepAudio && !folder ? { keep_audio: true } : {}),
    };
    const of = JSON.stringify([fields, labels?.name, labels?.size, folder,
      files.map((file) => [pathOf(file), file.size, file.lastModified])]);
    if (repeat.current.of !== of) repeat.current = { of, key: newId() };
    try {
      const job = await client.adapt(
        folder ? { folder } : archive ? { archive } : { files: recordings },
        { ...fields, idempotencyKey: repeat.current.key, onProgress: setSent,
          signal: control.current.signal },
      );
      const clips = archive && (await isZip(archive)) ? await unzip(archive) : recordings;
      started(job, folder ? null : clips);
      setFiles([]);
      setLabels(null);
      repeat.current = { of: "", key: "" };
    } catch (caught) {
      setError(caught);
      askKey(caught);
    }
    setSent(null);
  };

  const toggle = (name) => setEmotions((now) =>
    now.includes(name) ? now.filter((one) => one !== name) : [...now, name]);
  const ready = folder || archive || files.length > 0;
  return html`
    <${Drop} onFiles=${(more) => setFiles((now) => [...now, ...more])} label=${t("adapt.drop")} />
    ${files.length > 0 && html`<p role="status">${t("adapt.chosen", { count: files.length })}
      ${!archive && files.length < FEWEST ? ` ${t("adapt.few", { count: FEWEST })}` : ""}
      <button class="plain" onClick=${() => setFiles([])}>${t("clear")}</button></p>`}
    <div class="fields">
      ${folders.length > 0 && html`<label>${t("adapt.folder")}
        <select value=${folder} onChange=${(e) => setFolder(e.target.value)}>
          <option value="">${t("adapt.folder.none")}</option>
          ${folders.map((path) => html`<option value=${path}>${path}</option>`)}</select></label>`}
      <${LanguageField} id="adapt-language" value=${language} choose=${setLanguage}
        hint=${t("adapt.language")} />
      <label>${t("adapt.channels")}<select value=${channels} onChange=${(e) => setChannels(e.target.value)}>
        <option value="mix">${t("channels.mix")}</option><option value="split">${t("channels.split")}</option>
        <option value="0">${t("channel", { number: 1 })}</option>
        <option value="1">${t("channel", { number: 2 })}</option></select></label>
      <label>${t("adapt.labels")}<input type="file" accept=".csv,text/csv" disabled=${Boolean(folder)}
        aria-describedby="labels-hint" onChange=${(e) => setLabels(e.target.files[0] ?? null)} />
        <small class="quiet" id="labels-hint">${t("adapt.labels.hint")}</small></label>
    </div>
    ${known.length > 0 && html`<fieldset><legend>${t("adapt.emotions")}</legend><div class="row">
      ${known.map((name) => html`<label><input type="checkbox" checked=${emotions.includes(name)}
        onChange=${() => toggle(name)} /> ${t(`emotion.${name}`)}</label>`)}</div>
      <small class="quiet">${t("adapt.emotions.hint")}</small></fieldset>`}
    ${!folder && html`<p><label><input type="checkbox" checked=${keepAudio}
      onChange=${(e) => setKeepAudio(e.target.checked)} /> ${t("adapt.keep")}</label></p>`}
    <p class="row">
      <button class="primary" disabled=${!ready || sent !== null} onClick=${send}>${t("adapt.start")}</button>
      ${sent !== null && html`<${Progress} label=${t("state.sending")} value=${folder ? null : sent} />
        <button onClick=${() => control.current.abort()}>${t("cancel")}</button>`}
    </p>
    ${error && html`<${Problem} error=${error} retry=${send} close=${() => setError(null)} />`}
    ${service?.off?.filter(({ what }) => what.startsWith("adaptation")).map(({ what, how }) => html`
      <p class="quiet" lang="en" dir="ltr">Off here: ${what} (<code>${how}</code>)</p>`)}`;
}

function Jobs({ jobs, current, choose }) {
  const { t, language } = useContext(App);
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${t("jobs")}>
    <table><caption>${t("jobs")}</caption>
    <thead><tr><th>${t("job.begun")}</th><th>${t("models.model")}</th><th>${t("field.language")}</th>
      <th>${t("job.state")}</th><th>${t("job.verdict")}</th></tr></thead>
    <tbody>${jobs.map((job) => html`<tr key=${job.id} class=${job.id === current ? "current" : ""}>
      <th scope="row"><button class="plain" aria-pressed=${String(job.id === current)}
        onClick=${() => choose(job.id)}>${new Date(job.created_at).toLocaleString(language)}</button></th>
      <td><code>${job.name}${job.version ? `/${job.version}` : ""}</code></td>
      <td>${languageName(job.language, language)}</td><td>${t(`job.${job.state}`)}</td>
      <td>${job.verdict && t(`verdict.${job.verdict}`)}</td></tr>`)}</tbody></table></div>`;
}

const STAGES = ["queued", "preparing", "adapting", "evaluating", "publishing"];

/** One job: its stages while it runs, its report when it has ended. */
function Job({ job, clips, update }) {
  const { t, client, language, askKey } = useContext(App);
  const [trouble, setTrouble] = useState(null);
  const [error, setError] = useState(null);
  const [cancelled, setCancelled] = useState(false);
  const [round, setRound] = useState(0);
  useEffect(() => {
    if (hasEnded(job.state)) return undefined;
    const control = new AbortController();
    setError(null);
    client.watch(job.id, { onJob: update, onTrouble: setTrouble, signal: control.signal }).catch(
      (caught) => {
        if (caught.code === "aborted") return;
        setError(caught);
        askKey(caught);
      },
    );
    return () => control.abort();
  }, [job.id, client, round]);

  const cancel = async () => {
    setCancelled(true);
    try {
      update(await client.send("DELETE", `adapt/${job.id}`));
    } catch (caught) {
      setError(caught);
    }
  };
  const running = !hasEnded(job.state);
  const at = STAGES.indexOf(job.state);
  return html`<article class="card" aria-label=${t("job.of", { name: job.name })}>
    <h3>${t(job.kind === "evaluate" ? "job.evaluation" : "job.of", { name: job.name })} → ${languageName(job.language, language)}</h3>
    ${running && html`
      <ol class="row stages">${STAGES.map((stage, index) => html`<li key=${stage}
        aria-current=${index === at ? "step" : undefined} class=${index === at ? "" : "quiet"}>
        ${index < at ? "✓ " : ""}${t(`job.${stage}`)}</li>`)}</ol>
      <p class="row"><${Progress} value=${job.progress} label=${t(`job.${job.state}`)} />
        <span role="status">${job.eta_s == null ? "" : t("job.left", { time: left(job.eta_s, t) })}</span>
        <button disabled=${cancelled} onClick=${cancel}>${t("job.cancel")}</button></p>
      ${job.error && html`<p class="quiet" lang="en" dir="ltr">${job.error}</p>`}`}
    ${trouble && running && html`<${Notice} kind="wait">${t("job.trouble")}<//>`}
    ${error && html`<${Problem} error=${error} retry=${() => setRound(round + 1)} />`}
    ${job.state === "cancelled" && html`<${Notice}>
      ${t(cancelled ? "job.cancelled.here" : "job.cancelled.elsewhere")}<//>`}
    ${["failed", "interrupted"].includes(job.state) && html`<${Notice} kind="error">
      <strong>${t(`job.${job.state}`)}.</strong> <span lang="en" dir="ltr">${job.error}</span>
      <br />${t("job.failed.next")}<//>`}
    ${["succeeded", "rejected"].includes(job.state) && html`<${Report} job=${job} clips=${clips} />`}
  </article>`;
}

const left = (seconds, t) => seconds < 90
  ? t("seconds", { count: Math.max(1, Math.round(seconds)) })
  : t("minutes", { count: Math.round(seconds / 60) });
