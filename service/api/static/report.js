/** The report of a job: verdict, figures, charts, clips whose answer changed, and what to do next. */

import {
  App, Emotion, Notice, Problem, clipNamed, colour, html, languageName, open, percent, prefersDark,
  useContext, useEffect, useRef, useState,
} from "./parts.js";
import { Figures, Label } from "./label.js";

export function Report({ job, clips }) {
  const { t, client } = useContext(App);
  const [report, setReport] = useState(null);
  const [error, setError] = useState(null);
  const [labelling, setLabelling] = useState(false);
  const load = () => client.send("GET", `adapt/${job.id}/report`).then(
    (found) => { setReport(found); setError(null); }, setError);
  useEffect(() => { load(); }, [job.id, client]);

  const show = async () => {
    const page = window.open("", "_blank"); // now, while the click still allows it
    try {
      const url = await client.reportUrl(job.id);
      if (page) page.location = url;
      else location.assign(url);
    } catch (caught) {
      page?.close();
      setError(caught);
    }
  };
  if (error && !report) return html`<${Problem} error=${error} retry=${load} />`;
  if (!report) return html`<p role="status">${t("loading")}</p>`;
  if (job.kind === "evaluate") return html`<${Figures} found=${report} />`;
  const estimate = report.estimated_accuracy;
  return html`
    <p class="outcome"><strong>${t(`verdict.${report.verdict}`)}</strong>
      ${" "}${job.version ? t("report.published", { name: job.name, version: job.version })
        : t("report.unpublished")}</p>
    <ul lang="en" dir="ltr">${report.reasons.map((reason) => html`<li>${reason}</li>`)}</ul>
    <dl>
      <dt>${t("report.clips")}</dt><dd>${report.clips.accepted}${skipped(report, t)}</dd>
      ${estimate && html`<dt>${t("report.estimate")}</dt>
        <dd>${percent(estimate.value)} ± ${percent(estimate.error)}
          <span class="quiet"> ${t("report.estimate.hint")}</span></dd>`}
      ${report.answered_share && html`<dt>${t("report.answered")}</dt>
        <dd>${percent(report.answered_share.before)} → ${percent(report.answered_share.after)}</dd>`}
      ${report.confidence && html`<dt>${t("report.confidence")}</dt>
        <dd>${percent(report.confidence.before)} → ${percent(report.confidence.after)}</dd>`}
      ${report.changed !== undefined && html`<dt>${t("report.changed")}</dt>
        <dd>${report.changed} / ${report.windows}</dd>`}
    </dl>
    ${report.emotions && html`<${Emotions} change=${report.emotions} />`}
    ${report.changed_clips?.length > 0 && html`<${Changed} job=${job} clips=${clips}
      changed=${report.changed_clips} />`}
    ${job.version && html`<${Next} job=${job} />`}
    <p class="row"><button onClick=${show}>${t("report.whole")}</button>
      ${job.version && clips?.length > 0 && html`<button aria-expanded=${String(labelling)}
        onClick=${() => setLabelling(!labelling)}>${t("label.begin")}</button>`}</p>
    ${error && html`<${Problem} error=${error} close=${() => setError(null)} />`}
    ${labelling && html`<${Label} job=${job} clips=${clips} changed=${report.changed_clips ?? []} />`}`;
}

const skipped = (report, t) => {
  const found = Object.entries(report.clips.skipped);
  return found.length ? ` (${t("report.skipped")}: ${found.map(([why, count]) =>
    `${count} ${t(`skipped.${why}`)}`).join(", ")})` : "";
};

let charts = null;

/** uPlot, which comes as a script and a style; loaded when there is something to draw. */
const loadCharts = () => (charts ??= new Promise((resolve, reject) => {
  const base = new URL("./vendor/", import.meta.url);
  const style = Object.assign(document.createElement("link"), {
    rel: "stylesheet", href: new URL("uPlot.min.css", base),
  });
  const script = Object.assign(document.createElement("script"), {
    src: new URL("uPlot.iife.min.js", base), onload: () => resolve(window.uPlot), onerror: reject,
  });
  document.head.append(style, script);
}));

/** Shares of the emotions in the answers, before and after: a chart, and the same as a table. */
function Emotions({ change }) {
  const { t, language } = useContext(App);
  const box = useRef();
  const names = Object.keys({ ...change.before, ...change.after });
  useEffect(() => {
    let chart = null;
    let gone = false;
    loadCharts().then((uPlot) => {
      if (gone) return;
      const ink = prefersDark() ? "#e8ebef" : "#1c2229";
      const filled = (alpha) => ({
        unit: 3,
        values: () => names.map((name) => colour(name) + alpha),
      });
      const series = (label, align, alpha) => ({
        label, width: 0, points: { show: false },
        paths: uPlot.paths.bars({ size: [0.38, 60], align, disp: { fill: filled(alpha) } }),
        value: (_, share) => (share == null ? "" : percent(share, 1)),
        stroke: ink, fill: ink,
      });
      chart = new uPlot({
        width: Math.max(300, box.current.clientWidth), height: 220, cursor: { show: false },
        legend: { show: false },
        scales: { x: { time: false, range: [-0.6, names.length - 0.4] }, y: { range: [0, null] } },
        axes: [
          { stroke: ink, grid: { show: false }, splits: () => names.map((_, i) => i),
            values: () => names.map((name) => t(`emotion.${name}`)) },
          { stroke: ink, values: (_, shares) => shares.map((share) => percent(share)),
            grid: { stroke: prefersDark() ? "#3a434e" : "#ccd2da", width: 1 } },
        ],
        series: [{}, series(t("before"), -1, "66"), series(t("after"), 1, "ff")],
      }, [names.map((_, i) => i), ...["before", "after"].map((when) =>
        names.map((name) => change[when][name] ?? 0))], box.current);
    }, () => {});
    return () => { gone = true; chart?.destroy(); };
  }, [change, language]);
  return html`<h4>${t("report.emotions")}</h4>
    <div class="chart" ref=${box} role="img" aria-label=${t("report.emotions")}></div>
    <details><summary>${t("table")}</summary><table>
      <thead><tr><th>${t("emotion")}</th><th class="number">${t("before")}</th>
        <th class="number">${t("after")}</th></tr></thead>
      <tbody>${names.map((name) => html`<tr><th scope="row">${t(`emotion.${name}`)}</th>
        <td class="number">${percent(change.before[name] ?? 0, 1)}</td>
        <td class="number">${percent(change.after[name] ?? 0, 1)}</td></tr>`)}</tbody></table></details>`;
}

function Changed({ job, clips, changed }) {
  const { t, client } = useContext(App);
  const [error, setError] = useState(null);
  const [current, setCurrent] = useState(null);
  const player = useRef();
  const kept = job.keep_audio === true;
  useEffect(() => () => player.current?.src && URL.revokeObjectURL(player.current.src), []);
  const play = async (index) => {
    setError(null);
    setCurrent(index);
    try {
      const own = clipNamed(clips, changed[index].path);
      const blob = own ? await open(own) : await client.clip(job.id, index);
      if (player.current.src) URL.revokeObjectURL(player.current.src);
      player.current.src = URL.createObjectURL(blob);
      await player.current.play();
    } catch (caught) {
      if (caught.name !== "AbortError") setError(caught);
    }
  };
  return html`<h4>${t("report.listen")}</h4>
    <p class="quiet">${t(clips || kept ? "report.listen.hint" : "report.listen.gone")}</p>
    <audio ref=${player} controls aria-label=${t("report.listen")}></audio>
    ${error && (error.code ? html`<${Problem} error=${error} close=${() => setError(null)} />`
      : html`<${Notice} kind="error" close=${() => setError(null)}>${t("unplayable")}<//>`)}
    <div class="scroll" tabindex="0" role="region" aria-label=${t("report.listen")}>
    <table><thead><tr><th>${t("play")}</th><th>${t("file")}</th><th>${t("before")}</th>
      <th>${t("after")}</th><th class="number">${t("confidence")}</th></tr></thead>
    <tbody>${changed.map((clip, index) => html`<tr key=${index} class=${index === current ? "current" : ""}>
      <td><button class="plain" aria-label=${t("play.named", { name: clip.path })}
        disabled=${!kept && !clipNamed(clips, clip.path)} onClick=${() => play(index)}>▶</button></td>
      <th scope="row"><bdi>${clip.path}</bdi></th>
      <td><${Emotion} name=${clip.before} /></td><td><${Emotion} name=${clip.after} /></td>
      <td class="number">${percent(clip.confidence)}</td></tr>`)}</tbody></table></div>`;
}

/** Promote, shadow, roll back: the new version for the job's language. */
function Next({ job }) {
  const { t, client, language, askKey } = useContext(App);
  const [busy, setBusy] = useState(false);
  const [done, setDone] = useState("");
  const [error, setError] = useState(null);
  const act = async (action, body) => {
    setBusy(true);
    setError(null);
    try {
      await client.send("POST", `models/${job.name}/${action}`, { body });
      setDone(action);
    } catch (caught) {
      setError(caught);
      askKey(caught);
    }
    setBusy(false);
  };
  const { version } = job;
  const spoken = job.language === "und" ? t("language.all") : languageName(job.language, language);
  const choice = { version, language: job.language };
  return html`<h4>${t("next")}</h4><p class="row">
      <button class="primary" disabled=${busy} onClick=${() => act("promote", choice)}>${t("promote")}</button>
      <button disabled=${busy} onClick=${() => act("shadow", choice)}>${t("shadow")}</button>
      <button disabled=${busy} onClick=${() => act("rollback", { language: job.language })}>${t("rollback")}</button></p>
    <p class="quiet">${t("next.hint", { language: spoken })}</p>
    ${done && html`<${Notice}>${t(`done.${done}`, { name: job.name, version, language: spoken })}<//>`}
    ${error && (error.code === "scope_missing"
      ? html`<${Notice} kind="error">${t("scope.missing", { scope: "admin" })}<//>`
      : html`<${Problem} error=${error} close=${() => setError(null)} />`)}`;
}
