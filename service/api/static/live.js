/** The tab Live: the microphone over WS /stream, the emotion as it is heard. */

import {
  App, Emotion, LanguageField, Level, Notice, Outcome, Problem, Shares, clock, download, html,
  percent, useContext, useEffect, useKept, useRef, useState,
} from "./parts.js";
import { drawMicrophone } from "./waveform.js";

/** How often: by the clock, or when somebody pauses. */
const PACES = { windows: { hop_s: 1 }, turns: { segments: "turns" } };
const LAST = 60;

export function Live() {
  const { t, client, askKey, recognise } = useContext(App);
  const [state, setState] = useState("idle");
  const [language, setLanguage] = useState("");
  const [pace, setPace] = useState("windows");
  const [segments, setSegments] = useState([]);
  const [level, setLevel] = useState(0);
  const [seconds, setSeconds] = useState(0);
  const [outcome, setOutcome] = useState(null);
  const [error, setError] = useState(null);
  const stream = useRef(null);
  const box = useRef();
  const blocks = useRef(0);
  const last = segments.at(-1);
  useKept(state === "listening" || (outcome !== null && !outcome.saved && !outcome.answer));

  const start = async () => {
    setState("opening");
    setError(null);
    setOutcome(null);
    setSegments([]);
    setSeconds(0);
    blocks.current = 0;
    try {
      stream.current = await client.stream({
        ...PACES[pace],
        ...(language ? { language } : {}),
        onSegment: (segment) => setSegments((now) => [...now, segment]),
        onLevel: (peak) => {
          blocks.current += 1;
          setLevel(peak);
          setSeconds(Math.floor(blocks.current / 20));
        },
        onLost: (lost) => {
          setError(lost);
          askKey(lost);
        },
      });
      const [track] = stream.current.media.getAudioTracks();
      track.addEventListener("ended", () => stop());
      setState("listening");
    } catch (caught) {
      setError(caught);
      askKey(caught);
      setState("idle");
    }
  };

  const stop = async () => {
    const current = stream.current;
    if (!current) return;
    stream.current = null;
    setState("finishing");
    const found = await current.stop();
    setError(found.error);
    setOutcome(found);
    setState("idle");
  };

  useEffect(() => {
    if (state !== "listening") return undefined;
    let end = null;
    drawMicrophone(box.current, stream.current.media).then((made) => { end = made; });
    return () => end?.();
  }, [state]);

  const named = () => {
    const stamp = new Date().toISOString().slice(0, 19).replace(/[T:]/g, "-");
    return new File([outcome.audio], `live-${stamp}.wav`, { type: "audio/wav" });
  };
  const save = () => {
    const file = named();
    download(file, file.name);
    setOutcome({ ...outcome, saved: true });
  };
  const listening = state === "listening";

  return html`
    <h2 class="unseen">${t("tab.live")}</h2>
    <p>${t("live.what")}</p>
    <div class="fields">
      <${LanguageField} id="live-language" value=${language} choose=${setLanguage}
        hint=${t("field.language.predict")} />
      <label>${t("live.pace")}
        <select value=${pace} disabled=${state !== "idle"} onChange=${(e) => setPace(e.target.value)}>
          <option value="windows">${t("live.pace.windows")}</option>
          <option value="turns">${t("live.pace.turns")}</option>
        </select></label>
    </div>
    <p class="row">
      <button class=${listening ? "danger" : "primary"} aria-pressed=${String(listening)}
        disabled=${state === "opening" || state === "finishing"} onClick=${listening ? stop : start}>
        ${t(listening ? "record.stop" : "live.start")}</button>
      ${listening && html`<span class="recording" role="timer">${clock(seconds, 0)}
        <${Level} value=${level} /></span>`}
      ${state === "finishing" && html`<span role="status">${t("live.finishing")}</span>`}
    </p>
    ${listening && html`<div class="microphone" dir="ltr" ref=${box}></div>`}
    ${error && html`<${Problem} error=${error} close=${() => setError(null)}>
      ${listening ? ` ${t("live.still_recording")}` : ""}<//>`}
    ${(listening || segments.length > 0) && html`
      <p class="heard" role="status">${last
        ? html`<${Emotion} name=${last.emotion} reasons=${last.reasons} />
            ${last.emotion && html` <span class="number">${percent(last.confidence)}</span>`}`
        : html`<span class="quiet">${t("live.waiting")}</span>`}</p>
      <div class="strip" aria-hidden="true" dir="ltr">${segments.slice(-LAST).map((segment) =>
        html`<i key=${segment.end_s} class=${segment.emotion ?? "none"}
          style=${{ flex: `${segment.end_s - segment.start_s} 1 0` }}></i>`)}</div>`}
    ${listening && last && html`<${Shares} scores=${last.scores} emotion=${last.emotion} />`}
    ${outcome && html`<article class="card"><h3>${t("live.final")}</h3>
      ${outcome.answer
        ? html`<div role="status"><${Outcome} answer=${outcome.answer} /></div>
            <${Shares} scores=${outcome.answer.scores} emotion=${outcome.answer.emotion} />`
        : html`<${Notice}>${t("live.kept")}<//>`}
      <p class="row"><button onClick=${save}>${t("download.recording")}</button>
        <button onClick=${() => recognise([named()])}>${t("live.recognise")}</button></p>
    </article>`}`;
}
