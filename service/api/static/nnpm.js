/** nnpm in the browser: one ES module for the service that serves it. SPDX-License-Identifier: Apache-2.0 */

const base = new URL(".", import.meta.url);

/** Recognise the emotion in one recording.
 * @param {Blob} file an audio file.
 * @param {{key?: string, query?: Record<string, string>}} [options] the API key, where the service wants one, and the
 *   query of POST /predict.
 * @returns {Promise<object>} the answer of POST /predict.
 * @throws {Error} with the problem's detail as its message, and the problem itself as its cause.
 */
export async function predict(file, { key, query = {} } = {}) {
  const url = new URL("predict", base);
  url.search = new URLSearchParams(query).toString();
  const form = new FormData();
  form.append("file", file, file.name ?? "recording");
  const response = await fetch(url, {
    method: "POST",
    body: form,
    headers: key ? { Authorization: `Bearer ${key}` } : {},
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail, { cause: answer });
  return answer;
}
