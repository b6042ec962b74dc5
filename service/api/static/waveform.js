/** The waveform of a recording: one row per channel, segments in the colour of their emotion. */

import { App, colour, html, prefersDark, useContext, useEffect, useRef, useState } from "./parts.js";
import WaveSurfer from "./vendor/wavesurfer.esm.js";
import Regions from "./vendor/wavesurfer.regions.esm.js";
import Timeline from "./vendor/wavesurfer.timeline.esm.js";

/** In pixels. The hash of wavesurfer's style in the page's Content-Security-Policy contains it. */
export const HEIGHT = 64;
/** Longer recordings would be decoded whole in this page to draw a spectrogram. */
const LONGEST_SPECTROGRAM_S = 120;
/** Segments that are marked before the page may do something else. */
const AT_ONCE = 100;

const options = (container, more) => ({
  container,
  height: HEIGHT,
  normalize: true,
  waveColor: prefersDark() ? "#8d99ae" : "#6b7686",
  progressColor: prefersDark() ? "#c9d3e3" : "#39424f",
  cursorColor: prefersDark() ? "#fff" : "#000",
  ...more,
});

/** The largest value of each pair of minimum and maximum: wavesurfer mirrors it. */
const envelopes = (peaks) =>
  peaks.map((channel) => channel.map((pair) => Math.max(Math.abs(pair[0]), Math.abs(pair[1]))));

export function Waveform({ file, answer, playing, onPlay }) {
  const { t } = useContext(App);
  const box = useRef();
  const player = useRef(null);
  const [unplayable, setUnplayable] = useState(false);
  const [spectrogram, setSpectrogram] = useState(false);
  const [zoom, setZoom] = useState(0);
  const long = answer.audio.duration_s > LONGEST_SPECTROGRAM_S;

  useEffect(() => {
    const url = URL.createObjectURL(file);
    const regions = Regions.create();
    const timeline = Timeline.create({ height: 16 });
    const { channels, duration_s: duration } = answer.audio;
    const wave = WaveSurfer.create(options(box.current, {
      splitChannels: Array.from({ length: channels }, () => ({})),
      plugins: [regions, timeline],
    }));
    player.current = wave;
    wave.on("error", () => setUnplayable(true));
    wave.getMediaElement().addEventListener("error", () => setUnplayable(true));
    const perChannel = answer.per_channel?.length > 1;
    const mark = (from) => { // some at a time: an hour has more than a thousand
      if (player.current !== wave) return;
      answer.segments.slice(from, from + AT_ONCE).forEach((segment, index) => regions.addRegion({
        id: String(from + index), start: segment.start_s, end: segment.end_s, drag: false,
        resize: false, color: `${colour(segment.emotion)}66`,
        channelIdx: perChannel ? segment.channel : -1,
      }));
      if (from + AT_ONCE < answer.segments.length) setTimeout(mark, 0, from + AT_ONCE);
    };
    wave.on("decode", () => {
      regions.clearRegions();
      mark(0);
    });
    regions.on("region-clicked", (region, event) => {
      event.stopPropagation();
      onPlay(Number(region.id));
    });
    const drawn = answer.peaks
      ? wave.load(url, envelopes(answer.peaks), duration)
      : wave.loadBlob(file);
    drawn.catch(() => setUnplayable(true));
    return () => {
      wave.destroy();
      player.current = null;
      URL.revokeObjectURL(url);
    };
  }, [file, answer]);

  useEffect(() => {
    const segment = playing && answer.segments[playing.index];
    if (segment) player.current?.play(segment.start_s, segment.end_s).catch(() => {});
  }, [playing]);

  useEffect(() => {
    if (!spectrogram) return undefined;
    let made = null;
    let gone = false;
    import("./vendor/wavesurfer.spectrogram.esm.js").then(async ({ default: Spectrogram }) => {
      if (gone) return;
      made = player.current.registerPlugin(Spectrogram.create({
        labels: true, height: 128, splitChannels: answer.audio.channels > 1, frequencyMax: 8000,
      }));
      if (answer.peaks) await player.current.loadBlob(file).catch(() => setUnplayable(true));
    });
    return () => {
      gone = true;
      made?.destroy();
    };
  }, [spectrogram]);

  return html`<div class="waveform">
    <div ref=${box} dir="ltr" role="img" aria-label=${t("waveform", {
      channels: answer.audio.channels, segments: answer.segments.length })}></div>
    <p class="row">
      <button onClick=${() => player.current?.playPause().catch(() => {})} disabled=${unplayable}>
        ${t("play")}</button>
      <label>${t("zoom")} <input type="range" min="0" max="200" value=${zoom} onInput=${(e) => {
        setZoom(e.target.value);
        player.current?.zoom(Number(e.target.value));
      }} /></label>
      <label title=${long ? t("spectrogram.long") : ""}><input type="checkbox" disabled=${long || unplayable}
        checked=${spectrogram} onChange=${(e) => setSpectrogram(e.target.checked)} />
        ${t("spectrogram")}</label>
    </p>
    ${unplayable && html`<p class="quiet" role="status">${t("unplayable")}</p>`}
  </div>`;
}

/** Draw what a microphone records, as it is recorded; gives a function that ends it. */
export async function drawMicrophone(container, media) {
  const { default: Record } = await import("./vendor/wavesurfer.record.esm.js");
  const record = Record.create({ scrollingWaveform: true, renderRecordedAudio: false });
  const wave = WaveSurfer.create(options(container, { plugins: [record], interact: false }));
  const drawing = record.renderMicStream(media);
  return () => {
    drawing.onDestroy();
    wave.destroy();
  };
}
