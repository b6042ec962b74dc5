/** The tab Recognise: files, folders or a recording in; segments, shares and downloads out. */

import { NnpmError, newId, record } from "../nnpm.js";
import {
  App, Drop, Emotion, LanguageField, Level, Notice, Outcome, Problem, Progress, Shares, clock,
  download, html, pathOf, percent, useContext, useEffect, useKept, useRef, useState,
} from "./parts.js";

const AT_ONCE = 2;
// Of short and of long files: an hour that is zoomed in still shows its words.
const PEAKS = 2000;
const MANY_PEAKS = 10_000;
const LONG_BYTES = 20e6;
/** Formats of POST /predict; those of the first list hold many recordings. */
const TABLES = ["csv", "xlsx", "parquet", "jsonl", "rttm"];
const TIMELINES = ["textgrid", "eaf", "audacity", "srt", "vtt"];
const SUFFIXES = { textgrid: "TextGrid", audacity: "txt" };
/** Errors that another try may not meet. */
const PASSING = new Set(["unreachable", "aborted", "overloaded", "not_ready", "rate_limited"]);

export function Recognise({ handed }) {
  const { t, client, key, askKey } = useContext(App);
  const [items, setItems] = useState([]);
  const [shown, setShown] = useState(null);
  const [language, setLanguage] = useState("");
  const [channels, setChannels] = useState("split");
  const running = useRef(new Map());

  const change = (id, more) =>
    setItems((now) => now.map((item) => (item.id === id ? { ...item, ...more } : item)));

  const add = (files, recorded = false) => {
    const made = [...files].map((file) => ({
      id: newId(), file, name: pathOf(file), state: "waiting", recorded,
      how: { language, channels },
    }));
    setItems((now) => [...now, ...made]);
    setShown(made[0].id);
  };

  const start = async ({ id, file, name, how }) => {
    const control = new AbortController();
    running.current.set(id, control);
    change(id, { state: "sending", sent: 0, error: null });
    try {
      const answer = await client.predict(file, {
        ...how, name, signal: control.signal,
        peaks: file.size > LONG_BYTES ? MANY_PEAKS : PEAKS,
        onProgress: (sent) => change(id, sent < 1 ? { sent } : { state: "scoring" }),
      });
      change(id, { state: "done", answer });
    } catch (error) {
      change(id, { state: "failed", error });
      askKey(error);
    }
    running.current.delete(id);
  };

  // What waits is started here, so that a new file, a finished one and another try all lead here.
  useEffect(() => {
    const busy = running.current.size;
    items.filter((item) => item.state === "waiting" && !running.current.has(item.id))
      .slice(0, Math.max(0, AT_ONCE - busy)).forEach(start);
  }, [items, client]);

  useEffect(() => {
    if (handed) add(handed, true);
  }, [handed]);

  // A new key: what was refused for the old one is sent again.
  useEffect(() => {
    if (key) again((error) => error.status === 401 || error.status === 403);
  }, [key]);

  const again = (which) => setItems((now) => now.map((item) =>
    item.state === "failed" && which(item.error) ? { ...item, state: "waiting" } : item));
  const remove = (id) => {
    running.current.get(id)?.abort();
    setItems((now) => now.filter((item) => item.id !== id));
  };
  const clear = () => items.forEach((item) => remove(item.id));

  const current = items.find((item) => item.id === shown) ?? items.at(-1);
  const passing = items.filter(({ error, state }) =>
    state === "failed" && (PASSING.has(error.code) || error.status >= 500));
  useKept(items.some((item) => item.recorded && item.state !== "done"));

  return html`
    <h2 class="unseen">${t("tab.recognise")}</h2>
    <${Drop} onFiles=${add} label=${t("drop.recordings")} accept="audio/*,video/*">
      <${Recorder} done=${(file) => add([file], true)} />
    <//>
    <details class="options"><summary>${t("options")}</summary>
      <div class="fields">
        <${LanguageField} id="recognise-language" choose=${setLanguage} value=${language}
          hint=${t("field.language.predict")} />
        <label>${t("field.channels")}
          <select value=${channels} onChange=${(e) => setChannels(e.target.value)}>
            <option value="split">${t("channels.split")}</option>
            <option value="mix">${t("channels.mix")}</option>
          </select></label>
      </div>
    </details>
    ${passing.length > 0 && html`<${Notice} kind="error" retry=${() => again((error) =>
      PASSING.has(error.code) || error.status >= 500)}>
      ${t("recognise.passing", { count: passing.length })}<//>`}
    ${items.length > 1 && html`<${Table} items=${items} current=${current} show=${setShown}
      remove=${remove} clear=${clear} />`}
    ${items.length > 1 && html`<${Downloads} items=${items} />`}
    ${current && html`<${Item} key=${current.id} item=${current}
      retry=${() => change(current.id, { state: "waiting" })} remove=${() => remove(current.id)} />`}
  `;
}

/** The button that records, and what it shows meanwhile. */
function Recorder({ done }) {
  const { t } = useContext(App);
  const [state, setState] = useState("idle");
  const [error, setError] = useState(null);
  const [level, setLevel] = useState(0);
  const [seconds, setSeconds] = useState(0);
  const box = useRef();
  const recording = useRef(null);
  const drawing = useRef(null);
  const count = useRef(0);
  useKept(state === "recording");

  const start = async () => {
    setError(null);
    setState("opening");
    count.current = 0;
    try {
      recording.current = await record({
        onLevel: (peak) => {
          count.current += 1;
          setLevel(peak);
          setSeconds(Math.floor(count.current / 20));
        },
        onEnded: () => {
          setError(new NnpmError("microphone_lost", ""));
          stop();
        },
      });
      setState("recording");
    } catch (caught) {
      setError(caught);
      setState("idle");
    }
  };
  const stop = async () => {
    const current = recording.current;
    if (!current) return;
    recording.current = null;
    const blob = await current.stop();
    setState("idle");
    const stamp = new Date().toISOString().slice(0, 19).replace(/[T:]/g, "-");
    done(new File([blob], `recording-${stamp}.wav`, { type: "audio/wav" }));
  };

  useEffect(() => {
    if (state !== "recording") return undefined;
    const { media } = recording.current;
    import("./waveform.js").then(async ({ drawMicrophone }) => {
      if (recording.current && box.current) {
        drawing.current = await drawMicrophone(box.current, media);
      }
    });
    return () => {
      drawing.current?.();
      drawing.current = null;
    };
  }, [state]);

  return html`<button aria-pressed=${String(state === "recording")} disabled=${state === "opening"}
      class=${state === "recording" ? "danger" : ""} onClick=${state === "recording" ? stop : start}>
      ${t(state === "recording" ? "record.stop" : "record.start")}</button>
    ${state === "recording" && html`<span class="recording" role="timer">${clock(seconds, 0)}
      <${Level} value=${level} /></span><div class="microphone" dir="ltr" ref=${box}></div>`}
    ${error && html`<${Problem} error=${error} close=${() => setError(null)} />`}`;
}

function Table({ items, current, show, remove, clear }) {
  const { t } = useContext(App);
  const finished = items.filter(({ state }) => state === "done" || state === "failed").length;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${t("recordings")}>
    <table class="files"><caption>${t("recordings")}: ${finished} / ${items.length}
      <button class="plain" onClick=${clear}>${t("clear")}</button></caption>
    <thead><tr><th>${t("file")}</th><th>${t("emotion")}</th><th class="number">${t("confidence")}</th>
      <th class="number">${t("length")}</th><th><span class="unseen">${t("remove")}</span></th></tr></thead>
    <tbody>${items.map((item) => html`<tr key=${item.id} class=${item === current ? "current" : ""}>
      <th scope="row"><button class="plain name" aria-pressed=${String(item === current)}
        onClick=${() => show(item.id)}><bdi>${item.name}</bdi></button></th>
      <${Cells} item=${item} />
      <td><button class="plain" aria-label=${t("remove.named", { name: item.name })}
        onClick=${() => remove(item.id)}>×</button></td></tr>`)}
    </tbody></table></div>`;
}

function Cells({ item }) {
  const { t } = useContext(App);
  const { answer, error, state } = item;
  if (state === "done") {
    return html`<td><${Emotion} name=${answer.emotion} reasons=${answer.reasons} /></td>
      <td class="number">${answer.emotion ? percent(answer.confidence) : ""}</td>
      <td class="number">${clock(answer.audio.duration_s)}</td>`;
  }
  const words = state === "failed"
    ? (t.has(`error.${error.code}`) ? t(`error.${error.code}`) : error.title || error.message)
    : t(`state.${state}`);
  return html`<td colspan="3" class=${state === "failed" ? "wrong" : "quiet"}>${words}
    ${state === "sending" && item.sent ? ` ${percent(item.sent)}` : ""}</td>`;
}

function Item({ item, retry, remove }) {
  const { t } = useContext(App);
  const { answer, error, file, state } = item;
  const [playing, setPlaying] = useState(null);
  const play = (index) => setPlaying({ index });
  return html`<article class="card" aria-label=${item.name}>
    <h3><bdi>${item.name}</bdi></h3>
    ${(state === "sending" || state === "scoring") && html`<p class="row"><${Progress}
      label=${t(`state.${state}`)} value=${state === "sending" ? item.sent : null} />
      <button onClick=${remove}>${t("cancel")}</button></p>`}
    ${state === "waiting" && html`<p role="status">${t("state.waiting")}</p>`}
    ${state === "failed" && html`<${Problem} error=${error} retry=${retry}>
      ${item.recorded && html` <button onClick=${() => download(file, item.name)}>
        ${t("download.recording")}</button>`}<//>`}
    ${state === "done" && html`
      <div role="status"><${Outcome} answer=${answer} /></div>
      ${answer.audio.warnings.map((warning) => html`<p class="quiet" lang="en" dir="ltr">${warning}</p>`)}
      <div class="split"><${Shares} scores=${answer.scores} emotion=${answer.emotion} />
        ${answer.per_channel?.length > 1 && answer.per_channel.map((one) => html`<div>
          <h4>${t("channel", { number: one.channel + 1 })}: <${Emotion} name=${one.emotion}
            reasons=${one.reasons} /></h4>
          <${Shares} scores=${one.scores} emotion=${one.emotion} /></div>`)}</div>
      <${Lazy} file=${file} answer=${answer} playing=${playing} onPlay=${play} />
      <${Segments} answer=${answer} playing=${playing} play=${play} />
      <${Downloads} items=${[item]} />`}
  </article>`;
}

/** The waveform, whose libraries come when there is something to draw. */
function Lazy(props) {
  const [part, setPart] = useState(null);
  useEffect(() => {
    import("./waveform.js").then(({ Waveform }) => setPart({ Waveform }));
  }, []);
  return part ? html`<${part.Waveform} ...${props} />` : html`<div class="waveform"></div>`;
}

const FIRST_ROWS = 200;

function Segments({ answer, playing, play }) {
  const { t } = useContext(App);
  const [all, setAll] = useState(false);
  const rows = all ? answer.segments : answer.segments.slice(0, FIRST_ROWS);
  const many = answer.per_channel?.length > 1;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${t("segments")}>
    <table class="segments"><caption>${t("segments")}</caption>
    <thead><tr><th>${t("play")}</th><th class="number">${t("time")}</th>${many && html`<th>${t("side")}</th>`}
      <th>${t("emotion")}</th><th class="number">${t("confidence")}</th></tr></thead>
    <tbody>${rows.map((segment, index) => html`<tr key=${index}
        class=${playing?.index === index ? "current" : ""}>
      <td><button class="plain" onClick=${() => play(index)} aria-label=${t("play.from", {
        time: clock(segment.start_s) })}>▶</button></td>
      <td class="number" dir="ltr">${clock(segment.start_s)} – ${clock(segment.end_s)}</td>
      ${many && html`<td>${segment.channel + 1}</td>`}
      <td><${Emotion} name=${segment.emotion} reasons=${segment.reasons} />
        ${segment.speaker && html` <bdi>${segment.speaker}</bdi>`}</td>
      <td class="number">${segment.emotion ? percent(segment.confidence) : ""}</td></tr>`)}
    </tbody></table>
    ${rows.length < answer.segments.length && html`<button onClick=${() => setAll(true)}>
      ${t("show.all", { count: answer.segments.length })}</button>`}</div>`;
}

function Downloads({ items }) {
  const { t, client } = useContext(App);
  const [busy, setBusy] = useState("");
  const [error, setError] = useState(null);
  const done = items.filter(({ state }) => state === "done");
  if (!done.length) return null;
  const one = items.length === 1;
  const save = async (format, level) => {
    setError(null);
    const base = one ? done[0].name.split("/").pop().replace(/\.[^.]*$/, "") : "answers";
    if (format === "json") {
      const { peaks, ...answer } = done[0].answer;
      const found = one ? answer : {
        results: items.filter(({ state }) => state === "done" || state === "failed").map((item) => (
          item.answer
            ? { file: item.name, answer: { ...item.answer, peaks: undefined } }
            : { file: item.name, error: { code: item.error.code, detail: item.error.message } })),
      };
      download(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }), `${base}.json`);
      return;
    }
    setBusy(format + level);
    try {
      const options = { ...done[0].how, format, level };
      const blob = one
        ? await client.predict(done[0].file, { ...options, name: done[0].name })
        : await client.predictBatch(done.map(({ file }) => file), options);
      download(blob, `${base}.${SUFFIXES[format] ?? format}`);
    } catch (caught) {
      setError(caught);
    }
    setBusy("");
  };
  const button = (format, level) => html`<button disabled=${busy !== ""} key=${format + level}
    aria-busy=${String(busy === format + level)} onClick=${() => save(format, level)}>
    ${t.has(`format.${format}`) ? t(`format.${format}`) : format.toUpperCase()}</button>`;
  return html`<details class="downloads"><summary>${t("downloads")}</summary>
    <p class="quiet">${t("downloads.again")}</p>
    <p class="row"><span>${t("level.recording")}</span>${["json", ...TABLES].map((f) => button(f))}</p>
    <p class="row"><span>${t("level.segment")}</span>${TABLES.slice(0, 4).map((f) => button(f, "segment"))}</p>
    ${one && html`<p class="row"><span>${t("level.timeline")}</span>${TIMELINES.map((f) => button(f))}</p>`}
    ${error && html`<${Problem} error=${error} close=${() => setError(null)} />`}</details>`;
}
