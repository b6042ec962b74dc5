/** The tab Models: versions, which of them answers for which language, their origin and their drift. */

import {
  App, Notice, Problem, html, languageName, percent, useContext, useEffect, useState,
} from "./parts.js";

export function Models({ shown }) {
  const { t, client, askKey } = useContext(App);
  const [models, setModels] = useState(null);
  const [error, setError] = useState(null);
  const [current, setCurrent] = useState(null);
  const load = () => client.send("GET", "models").then(
    (found) => { setModels(found.models); setError(null); },
    (caught) => { setError(caught); askKey(caught); },
  );
  useEffect(() => { if (shown) load(); }, [shown, client]);
  return html`
    <h2 class="unseen">${t("tab.models")}</h2>
    ${error && (error.code === "scope_missing"
      ? html`<${Notice} kind="error">${t("scope.missing", { scope: "predict" })}<//>`
      : html`<${Problem} error=${error} retry=${load} />`)}
    ${models?.map((model) => html`<${Model} key=${model.name} model=${model} load=${load}
      current=${current} choose=${setCurrent} />`)}`;
}

function Model({ model, load, current, choose }) {
  const { t, client, language, askKey } = useContext(App);
  const [error, setError] = useState(null);
  const [asking, setAsking] = useState(null);
  const [done, setDone] = useState("");
  const { name, aliases } = model;
  const spoken = (tag) => (tag === "und" ? t("language.all") : languageName(tag, language));
  const act = async (method, path, body) => {
    setError(null);
    setDone("");
    try {
      await client.send(method, path, { body });
      setAsking(null);
      setDone(t("done"));
    } catch (caught) {
      setError(caught);
      askKey(caught);
    }
    load();
  };
  const rows = Object.entries(aliases);
  const [chosenName, chosenVersion] = current?.split("/") ?? [];
  return html`<article class="card" aria-label=${name}>
    <h3><code>${name}</code></h3>
    ${(model.warnings ?? []).map((warning) => html`<${Notice} kind="error"><span lang="en" dir="ltr">
      ${warning}</span><//>`)}
    ${rows.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label=${t("models.aliases")}>
      <table><caption>${t("models.aliases")}</caption>
      <thead><tr><th>${t("field.language")}</th><th>${t("models.live")}</th><th>${t("models.previous")}</th>
        <th>${t("models.shadow")}</th><th><span class="unseen">${t("next")}</span></th></tr></thead>
      <tbody>${rows.map(([tag, held]) => html`<tr key=${tag}><th scope="row">${spoken(tag)}</th>
        <td>${held.live ?? "–"}</td><td>${held.previous ?? "–"}</td><td>${held.shadow ?? "–"}</td>
        <td class="row">${held.live && html`<button onClick=${() => act("POST", `models/${name}/rollback`,
            { language: tag })}>${t("rollback")}</button>`}
          ${held.shadow && html`<button onClick=${() => act("POST", `models/${name}/shadow`,
            { version: null, language: tag })}>${t("shadow.end")}</button>`}</td></tr>`)}</tbody></table></div>`}
    <div class="scroll" tabindex="0" role="region" aria-label=${t("models.versions")}>
      <table><caption>${t("models.versions")}</caption>
      <tbody>${model.versions.map((version) => html`<tr key=${version}>
        <th scope="row"><button class="plain" aria-expanded=${String(current === `${name}/${version}`)}
          onClick=${() => choose(current === `${name}/${version}` ? null : `${name}/${version}`)}>
          ${version}</button></th>
        <td class="row"><button onClick=${() => act("POST", `models/${name}/promote`, { version })}
            aria-label=${`${t("promote")} ${version}`}>${t("promote")}</button>
          <button onClick=${() => act("POST", `models/${name}/shadow`, { version })}
            aria-label=${`${t("shadow")} ${version}`}>${t("shadow")}</button>
          <button aria-label=${`${t("delete")} ${version}`} onClick=${() => setAsking(version)}>
            ${t("delete")}</button></td></tr>`)}</tbody></table></div>
    ${asking && html`<${Notice} kind="error" close=${() => setAsking(null)}>
      ${t("delete.sure", { version: asking })} <button class="danger" onClick=${() =>
        act("DELETE", `models/${name}/${asking}`)}>${t("delete")}</button><//>`}
    ${done && html`<${Notice} close=${() => setDone("")}>${done}<//>`}
    ${error && (error.code === "scope_missing"
      ? html`<${Notice} kind="error" close=${() => setError(null)}>${t("scope.missing", { scope: "admin" })}<//>`
      : html`<${Problem} error=${error} close=${() => setError(null)} />`)}
    ${chosenName === name && html`<${Version} key=${current} name=${name} version=${chosenVersion} />`}
    <${Figures} figures=${model.figures} spoken=${spoken} />
  </article>`;
}

/** What the versions have heard lately in this process: drift, and whether shadows agree. */
function Figures({ figures, spoken }) {
  const { t } = useContext(App);
  if (!figures.length) return html`<p class="quiet">${t("figures.none")}</p>`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${t("figures")}>
    <table><caption>${t("figures")}</caption>
    <thead><tr><th>${t("models.version")}</th><th>${t("field.language")}</th><th class="number">${t("figures.heard")}</th>
      <th class="number">${t("confidence")}</th><th class="number">${t("figures.abstained")}</th>
      <th class="number">${t("figures.drift")}</th><th class="number">${t("figures.agreement")}</th></tr></thead>
    <tbody>${figures.map((one) => html`<tr key=${`${one.version} ${one.language} ${one.role}`}>
      <th scope="row">${one.version} (${t(`models.${one.role}`)})</th><td>${spoken(one.language)}</td>
      <td class="number">${one.heard}</td><td class="number">${percent(one.mean_confidence)}</td>
      <td class="number">${percent(one.abstained)}</td>
      <td class="number"><span title=${one.hint}>${percent(one.drift)}</span></td>
      <td class="number">${one.agreement == null ? "–" : percent(one.agreement)}</td></tr>
      <tr><td colspan="7" class="quiet" lang="en" dir="ltr">${one.hint}</td></tr>`)}</tbody></table></div>`;
}

function Version({ name, version }) {
  const { t, client, language } = useContext(App);
  const [detail, setDetail] = useState(null);
  const [error, setError] = useState(null);
  const load = () => client.send("GET", `models/${name}/${version}`).then(setDetail, setError);
  useEffect(() => { load(); }, []);
  if (error) return html`<${Problem} error=${error} retry=${() => { setError(null); load(); }} />`;
  if (!detail) return html`<p role="status">${t("loading")}</p>`;
  const { card, evidence, lineage } = detail;
  const corpora = lineage.training.corpora ?? [];
  return html`<section aria-label=${t("models.card")}><h4>${name}/${version}</h4><dl>
    <dt>${t("field.language")}</dt><dd>${detail.language === "und" ? t("language.all")
      : languageName(detail.language, language)}</dd>
    <dt>${t("models.emotions")}</dt><dd>${card.labels.map((label) => t(`emotion.${label}`)).join(", ")}</dd>
    <dt>${t("confidence")}</dt><dd>${t(card.calibrated ? "calibrated" : "not_calibrated")}</dd>
    <dt>${t("models.created")}</dt><dd>${new Date(lineage.created_at).toLocaleString(language)}</dd>
    <dt>${t("models.parent")}</dt><dd>${lineage.parent ? html`<code>${lineage.parent}</code>`
      : t("models.parent.none")}</dd>
    <dt>${t("models.licence")}</dt><dd lang="en" dir="ltr">${card.licence}</dd>
    ${evidence && html`<dt>${t("job.verdict")}</dt><dd>${t(`verdict.${evidence.verdict}`)}
      ${evidence.estimated_accuracy && ` · ${t("report.estimate")}: ${percent(
        evidence.estimated_accuracy.value)} ± ${percent(evidence.estimated_accuracy.error)}`}</dd>`}
    ${corpora.length > 0 && html`<dt>${t("models.corpora")}</dt><dd lang="en" dir="ltr">${corpora.map((corpus) =>
      html`<div>${corpus.name} (${corpus.language}, ${corpus.licence})</div>`)}</dd>`}
    </dl>
    <details><summary>${t("models.card")}</summary><div class="scroll" tabindex="0" role="region"
      aria-label=${t("models.card")}><pre lang="en" dir="ltr">${JSON.stringify(card, null, 2)}</pre></div>
    </details></section>`;
}
