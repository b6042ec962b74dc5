/**
 * nnpm.js: emotion recognition in the browser, one module without dependencies.
 *
 *     import { Client, record } from "https://emotion.example.org/nnpm.js";
 *     const client = new Client({ key: "nnpm_…" });
 *     const answer = await client.predict(file);
 *
 * The service that serves this file is the one that is called, unless `url` names another. It is one
 * file, however long, so that it can be copied as one; it loads itself a second time as an
 * AudioWorklet, whose processor stands at its end.
 */

const ENDED = new Set(["succeeded", "failed", "cancelled", "rejected", "interrupted"]);
const LONGEST_WAIT_S = 15;
const RATE_HZ = 16_000;

/** Whether a job with this state has ended. */
export const hasEnded = (state) => ENDED.has(state);

/**
 * Every error of this module. `code` is for programs: one of the service (docs/use/errors.md), or
 * `unreachable`, `aborted`, `connection_lost`, `insecure`, `microphone_refused`,
 * `microphone_missing`, `microphone_busy`, `microphone_lost`. `message` is a sentence.
 */
export class NnpmError extends Error {
  constructor(code, message, { status = 0, title = "", requestId = "", retryAfterS = null } = {}) {
    super(message);
    Object.assign(this, { name: "NnpmError", code, status, title, requestId, retryAfterS });
  }
}

const unreachable = () => new NnpmError("unreachable", "The service cannot be reached.");
const aborted = () => new NnpmError("aborted", "The request was cancelled.");

function problemOf(status, text, header = () => null) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // a proxy's page
  }
  const message = body.detail ?? `The service answered with status ${status}.`;
  return new NnpmError(body.code ?? `status_${status}`, message, {
    status,
    title: body.title ?? "",
    requestId: body.request_id ?? "",
    retryAfterS: Number(header("Retry-After")) || null,
  });
}

function queryOf(options) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(options)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") query.append(name, one);
    }
  }
  return query.size ? `?${query}` : "";
}

/** A client of one service. */
export class Client {
  /**
   * @param {string|URL} url of the service, with the path prefix of a proxy; by default the one
   *   that this file came from.
   * @param {string} key an API key, if the service needs one.
   */
  constructor({ url = new URL(".", import.meta.url), key = "" } = {}) {
    this.url = new URL(String(url).replace(/\/?$/, "/"));
    this.key = key;
  }

  /** The headers that every request needs. */
  get headers() {
    return this.key ? { Authorization: `Bearer ${this.key}` } : {};
  }

  /** Send a request without audio; gives the parsed JSON, null, or a Blob for another `accept`. */
  async send(method, path, { body, signal, accept = "application/json" } = {}) {
    const headers = {
      ...this.headers,
      Accept: accept,
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    };
    let response, found;
    try {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const options = { method, headers, signal, body: text, cache: "no-store" };
      response = await fetch(new URL(path, this.url), options);
      found = await response.blob();
    } catch {
      throw signal?.aborted ? aborted() : unreachable();
    }
    const header = (name) => response.headers.get(name);
    if (!response.ok) throw problemOf(response.status, await found.text(), header);
    if (!found.size) return null;
    return accept === "application/json" ? JSON.parse(await found.text()) : found;
  }

  /** One recording of a job that was sent with `keep_audio`, as a Blob. */
  clip(id, number) {
    return this.send("GET", `adapt/${id}/clips/${number}`, { accept: "audio/*" });
  }

  /**
   * Send audio, with progress. XMLHttpRequest, because fetch does not report what it has sent.
   *
   * @returns {Promise<object|Blob>} the parsed JSON, or what else was answered.
   */
  upload(path, form, { onProgress, signal, headers = {} } = {}) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const stop = () => request.abort();
      request.open("POST", new URL(path, this.url));
      request.responseType = "blob";
      for (const [name, value] of Object.entries({ ...this.headers, ...headers })) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => {
        if (event.lengthComputable) onProgress?.(event.loaded / event.total);
      };
      request.onerror = () => reject(unreachable());
      request.onabort = () => reject(aborted());
      request.onloadend = () => signal?.removeEventListener("abort", stop);
      request.onload = async () => {
        const kind = request.getResponseHeader("Content-Type") ?? "";
        if (request.status >= 400) {
          const text = await request.response.text();
          reject(problemOf(request.status, text, (name) => request.getResponseHeader(name)));
        } else {
          resolve(kind.startsWith("application/json")
            ? JSON.parse(await request.response.text())
            : request.response);
        }
      };
      if (signal?.aborted) {
        reject(aborted());
        return;
      }
      signal?.addEventListener("abort", stop);
      request.send(form);
    });
  }

  /**
   * Recognise the emotion in one recording: POST /predict.
   *
   * @param {Blob} audio a file, or what `record` gave.
   * @param {object} options `name`, `onProgress(share)`, `signal`; all others are parameters of
   *   POST /predict: `language`, `model`, `channels`, `top_k`, `peaks`, `format`, …
   * @returns {Promise<object|Blob>} the answer; a Blob with a `format` other than json.
   */
  predict(audio, { name = audio.name, onProgress, signal, ...query } = {}) {
    const form = new FormData();
    form.append("file", audio, name || "recording.wav");
    return this.upload(`predict${queryOf(query)}`, form, { onProgress, signal });
  }

  /** Recognise many recordings at once: POST /predict/batch; options as for `predict`. */
  predictBatch(files, { onProgress, signal, ...query } = {}) {
    const form = new FormData();
    for (const file of files) form.append("files", file, file.name);
    return this.upload(`predict/batch${queryOf(query)}`, form, { onProgress, signal });
  }

  /** A ticket for what cannot send a key: `stream`, `events` or `report`. */
  async ticket(scope) {
    return (await this.send("POST", "tickets", { body: { scope } })).ticket;
  }

  /** The address of a job's report, for a link; it holds for a minute. */
  async reportUrl(id) {
    const query = this.key ? queryOf({ ticket: await this.ticket("report") }) : "";
    return new URL(`adapt/${id}/report${query}`, this.url).href;
  }

  /**
   * Recognise emotion while it is spoken: WS /stream.
   *
   * @param {object} options `onSegment(segment)`, `onLevel(peak)` with 0 to 1, `onLost(error)`,
   *   `media` (a MediaStream; the microphone by default); all others go into the first message:
   *   `language`, `window_s`, `hop_s`, `segments`.
   * @returns {Promise<{stop: () => Promise<{answer, error, audio}>, media: MediaStream}>} `stop`
   *   gives the final answer, or the error that ended the stream, and always the recording as WAV.
   */
  async stream({ onSegment, onLevel, onLost, media, ...hello } = {}) {
    const waiting = [];
    let send = (samples) => waiting.push(samples);
    const recording = await record({ media, onLevel, onSamples: (s) => send(s) });
    let socket;
    try {
      const query = this.key ? queryOf({ ticket: await this.ticket("stream") }) : "";
      const address = new URL(`stream${query}`, this.url);
      address.protocol = address.protocol.replace("http", "ws");
      socket = new WebSocket(address);
    } catch (error) {
      recording.cancel();
      throw error instanceof NnpmError ? error : unreachable();
    }
    let open = false;
    const outcome = new Promise((resolve) => {
      let told = null;
      socket.onopen = () => {
        open = true;
        const first = { sample_rate_hz: recording.rateHz, channels: 1, ...hello };
        socket.send(JSON.stringify(first));
        send = (samples) => socket.readyState === WebSocket.OPEN && socket.send(samples);
        waiting.splice(0).forEach(send);
      };
      socket.onmessage = ({ data }) => {
        const { type, ...message } = JSON.parse(data);
        if (type === "segment") onSegment?.(message);
        if (type === "final") told = { answer: message };
        if (type === "error") told = { error: problemOf(message.status, data) };
      };
      socket.onclose = () => {
        const lost = open
          ? new NnpmError("connection_lost", "The connection to the service was lost.")
          : unreachable();
        resolve({ answer: null, error: told?.answer ? null : lost, ...told });
      };
    });
    let stopping = false;
    outcome.then(({ error }) => {
      send = () => {};
      waiting.length = 0;
      if (error && !stopping) onLost?.(error);
    });
    const stop = async () => {
      stopping = true;
      const audio = await recording.stop();
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ end: true }));
      return { ...(await outcome), audio };
    };
    return { stop, media: recording.media };
  }

  /**
   * Start an adaptation: POST /adapt.
   *
   * @param {object} source `files` (an array), `archive` (a zip or tar) or `folder` (a path on the
   *   server).
   * @param {object} options `onProgress(share)`, `signal`, `idempotencyKey` (sending again with the
   *   same one is safe); all others are fields of POST /adapt: `language`, `emotions`, `labels`, …
   * @returns {Promise<object>} the queued job.
   */
  adapt({ files = [], archive, folder }, options = {}) {
    const { onProgress, signal, idempotencyKey = newId(), ...fields } = options;
    const headers = { "Idempotency-Key": idempotencyKey };
    if (folder !== undefined) {
      const body = new Blob([JSON.stringify({ folder, ...fields })]);
      headers["Content-Type"] = "application/json";
      return this.upload("adapt", body, { signal, headers });
    }
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      if (value instanceof Blob) form.append(name, value, value.name || name);
      else for (const one of Array.isArray(value) ? value : [value]) form.append(name, one);
    }
    if (archive) form.append("archive", archive, archive.name || "recordings.zip");
    for (const file of files) form.append("files", file, file.name);
    return this.upload("adapt", form, { onProgress, signal, headers });
  }

  /**
   * Watch a job until it has ended. A connection that breaks is made again.
   *
   * @param {object} options `onJob(job)` after every change, `onTrouble(error|null)` while the
   *   service cannot be reached and when it can again, `signal`.
   * @returns {Promise<object>} the job in its final state.
   */
  async watch(id, { onJob, onTrouble, signal } = {}) {
    for (let tries = 0; ; tries += 1) {
      try {
        let last = null;
        for await (const job of this.#events(id, signal)) {
          if (tries) onTrouble?.(null);
          tries = 0;
          last = job;
          onJob?.(job);
        }
        if (last && hasEnded(last.state)) return last;
        throw unreachable();
      } catch (error) {
        const passing = ["unreachable", "too_many_connections", "store_unavailable"];
        if (!(error.status >= 502 || passing.includes(error.code))) throw error;
        onTrouble?.(error);
        await pause(Math.min(2 ** tries, LONGEST_WAIT_S), signal);
      }
    }
  }

  async *#events(id, signal) {
    const address = new URL(`adapt/${id}/events`, this.url);
    try {
      const response = await fetch(address, { headers: this.headers, signal, cache: "no-store" });
      if (!response.ok) throw problemOf(response.status, await response.text());
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        text += value.replaceAll("\r", "");
        const events = text.split("\n\n");
        text = events.pop();
        for (const event of events) {
          const data = event.split("\n").filter((line) => line.startsWith("data:"));
          if (data.length) yield JSON.parse(data.map((line) => line.slice(5)).join("\n"));
        }
      }
    } catch (error) {
      if (signal?.aborted) throw aborted();
      throw error instanceof NnpmError ? error : unreachable();
    }
  }

  /** Score labelled recordings with a version; `archive` is a zip with a metadata.csv. */
  evaluate(name, version, archive, { apply = false, ...options } = {}) {
    const form = new FormData();
    form.append("archive", archive, "labelled.zip");
    if (apply) form.append("apply", "true");
    return this.upload(`models/${name}/${version}/evaluate`, form, options);
  }
}

/** An id that nobody else makes, also without the secure context that randomUUID needs. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) reject(aborted());
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(aborted());
    });
  });
}

/**
 * Open the microphone, without the filters that browsers make for calls: they change the voice.
 *
 * @throws {NnpmError} in plain words why there is none.
 */
export async function microphone() {
  if (!globalThis.navigator?.mediaDevices?.getUserMedia) {
    throw new NnpmError(
      "insecure",
      "Browsers give the microphone only to pages of this machine or over https.",
    );
  }
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, ...plain } });
  } catch (error) {
    switch (error.name) {
      case "NotAllowedError":
      case "SecurityError":
        throw new NnpmError("microphone_refused", "The use of the microphone was refused.");
      case "NotFoundError":
      case "OverconstrainedError":
        throw new NnpmError("microphone_missing", "No microphone was found.");
      default:
        throw new NnpmError("microphone_busy", "The microphone cannot be opened.");
    }
  }
}

/**
 * Record from the microphone.
 *
 * @param {object} options `onLevel(peak)` with 0 to 1 some 20 times a second, `onSamples(Int16Array)`
 *   with the same blocks, `onEnded()` if the microphone is taken away, `media` (a MediaStream).
 * @returns {Promise<{stop, cancel, media, rateHz}>} `stop()` gives the recording as a WAV Blob.
 */
export async function record({ onLevel, onSamples, onEnded, media } = {}) {
  const own = !media;
  media ??= await microphone();
  const release = () => own && media.getTracks().forEach((track) => track.stop());
  let context, source, node;
  try {
    ({ context, source } = connect(media));
    await context.audioWorklet.addModule(import.meta.url);
    node = new AudioWorkletNode(context, "nnpm-pcm", { numberOfOutputs: 0 });
  } catch {
    release();
    context?.close();
    throw new NnpmError("microphone_busy", "The browser cannot record from this microphone.");
  }
  const blocks = [];
  let flushed = () => {};
  node.port.onmessage = ({ data }) => {
    if (data.samples.length) {
      blocks.push(data.samples);
      onSamples?.(data.samples);
      onLevel?.(data.peak);
    }
    if (data.last) flushed();
  };
  source.connect(node);
  await context.resume();
  media.getAudioTracks()[0]?.addEventListener("ended", () => onEnded?.());
  const end = async () => {
    const last = new Promise((resolve) => { flushed = resolve; });
    node.port.postMessage("flush");
    await Promise.race([last, pause(1)]);
    source.disconnect();
    release();
    await context.close();
  };
  let ending = null;
  return {
    media,
    rateHz: context.sampleRate,
    cancel: () => (ending ??= end()),
    stop: async () => {
      await (ending ??= end());
      return wav(blocks, context.sampleRate);
    },
  };
}

/** A context at the rate of the model, where the browser resamples; else at that of the device. */
function connect(media) {
  const context = new AudioContext({ sampleRate: RATE_HZ });
  try {
    return { context, source: context.createMediaStreamSource(media) };
  } catch {
    context.close();
    const plain = new AudioContext();
    return { context: plain, source: plain.createMediaStreamSource(media) };
  }
}

/** A mono WAV of 16-bit blocks. */
export function wav(blocks, rateHz) {
  const bytes = 2 * blocks.reduce((sum, block) => sum + block.length, 0);
  const header = new DataView(new ArrayBuffer(44));
  const text = (at, word) => [...word].forEach((c, i) => header.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  header.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  [[16, 4, 16], [20, 2, 1], [22, 2, 1], [24, 4, rateHz], [28, 4, 2 * rateHz], [32, 2, 2], [34, 2, 16]]
    .forEach(([at, size, value]) => header[size === 4 ? "setUint32" : "setUint16"](at, value, true));
  text(36, "data");
  header.setUint32(40, bytes, true);
  return new Blob([header, ...blocks], { type: "audio/wav" });
}

if (globalThis.registerProcessor) {
  /** Collects blocks of 50 ms as 16-bit samples, the mean of all channels. */
  class Pcm extends AudioWorkletProcessor {
    constructor() {
      super();
      this.block = new Int16Array(Math.round(sampleRate / 20));
      this.filled = 0;
      this.peak = 0;
      this.running = true;
      this.port.onmessage = () => {
        this.post(true);
        this.running = false;
      };
    }

    post(last = false) {
      const samples = this.block.slice(0, this.filled);
      this.port.postMessage({ samples, peak: this.peak, last }, [samples.buffer]);
      this.filled = this.peak = 0;
    }

    process([channels]) {
      for (let i = 0; i < (channels[0]?.length ?? 0); i += 1) {
        let sum = 0;
        for (const channel of channels) sum += channel[i];
        const sample = Math.max(-1, Math.min(1, sum / channels.length));
        this.peak = Math.max(this.peak, Math.abs(sample));
        this.block[this.filled] = Math.round(32767 * sample);
        this.filled += 1;
        if (this.filled === this.block.length) this.post();
      }
      return this.running;
    }
  }
  registerProcessor("nnpm-pcm", Pcm);
}
