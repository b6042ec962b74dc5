/** The page: header, tabs, key and language. Each tab is a module, loaded when it is first opened. */

import { Client } from "../nnpm.js";
import { LANGUAGES, translate } from "./messages.js";
import { App, Notice, html, render, useContext, useEffect, useMemo, useRef, useState } from "./parts.js";
import { Recognise } from "./recognise.js";

const KEY = "nnpm-key";
const LANGUAGE = "nnpm-language";
const TABS = {
  recognise: async () => Recognise,
  live: async () => (await import("./live.js")).Live,
  adapt: async () => (await import("./adapt.js")).Adapt,
  models: async () => (await import("./models.js")).Models,
};

/** What the browser was told to keep; storage may be switched off. */
const stored = (storage, name) => {
  try {
    return storage()[name] ?? "";
  } catch {
    return "";
  }
};
const store = (storage, name, value) => {
  try {
    storage()[name] = value;
  } catch {
    // then it is asked for again
  }
};

const firstLanguage = () => {
  const wanted = [stored(() => localStorage, LANGUAGE), ...navigator.languages];
  return wanted.map((tag) => tag.slice(0, 2)).find((tag) => tag in LANGUAGES) ?? "en";
};
const firstTab = () => (location.hash.slice(1) in TABS ? location.hash.slice(1) : "recognise");

function Page() {
  const [language, setLanguage] = useState(firstLanguage);
  const [tab, setTab] = useState(firstTab);
  const [opened, setOpened] = useState({ recognise: Recognise });
  const [key, setKey] = useState(() => stored(() => sessionStorage, KEY));
  const [asked, setAsked] = useState(null);
  const [service, setService] = useState(null);
  const [handed, setHanded] = useState(null);
  const t = useMemo(() => translate(language), [language]);
  const client = useMemo(() => new Client({ key }), [key]);

  const app = useMemo(
    () => ({
      t,
      language,
      client,
      key,
      service,
      /** Shows the dialog for a key if that is what an error is about; gives whether it is. */
      askKey: (error) => error?.status === 401 && (setAsked(error), true),
      /** Hands files to the tab that recognises. */
      recognise: (files) => {
        setHanded(files);
        setTab("recognise");
      },
    }),
    [t, language, client, key, service],
  );

  useEffect(() => {
    document.documentElement.lang = language;
    document.documentElement.dir = LANGUAGES[language].dir;
    document.title = t("title");
    store(() => localStorage, LANGUAGE, language);
  }, [language]);

  useEffect(() => {
    history.replaceState(null, "", `#${tab}`);
    if (!opened[tab]) {
      TABS[tab]().then((part) => setOpened((now) => ({ ...now, [tab]: part })));
    }
  }, [tab]);

  useEffect(() => {
    const follow = () => setTab(firstTab());
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, []);

  useEffect(() => {
    client.send("GET", "").then((found) => {
      setService(found);
      if (found.keys && !key) setAsked({ code: "key_missing" });
    }, () => setService({ ready: null }));
  }, [client]);

  const enter = (given) => {
    store(() => sessionStorage, KEY, given);
    setKey(given);
    setAsked(null);
  };

  return html`
    <${App.Provider} value=${app}>
      <header>
        <div class="bar"><h1>nnpm <small>${t("tagline")}</small></h1>
        <div class="tools">
          ${(key || service?.keys) && html`<button class="plain" onClick=${() => setAsked({})}>
            ${t(key ? "key.change" : "key.enter")}</button>`}
          <label><span class="unseen">${t("language")}</span>
            <select value=${language} onChange=${(e) => setLanguage(e.target.value)}>
              ${Object.entries(LANGUAGES).map(([tag, { name }]) =>
                html`<option value=${tag} lang=${tag}>${name}</option>`)}
            </select></label>
        </div></div>
        <${Tabs} tab=${tab} choose=${setTab} />
      </header>
      <main>
        ${service && service.ready === null && html`<${Notice} kind="error"
          retry=${() => location.reload()}>${t("error.unreachable")}<//>`}
        ${service?.ready === false && html`<${Notice} kind="wait">
          ${t("not_ready")} <span lang="en" dir="ltr">${service.obstacle}</span><//>`}
        ${Object.entries(TABS).map(([name]) => html`
          <section key=${name} role="tabpanel" id=${`panel-${name}`} tabindex="-1"
            aria-labelledby=${`tab-${name}`} hidden=${name !== tab}>
            ${opened[name] && html`<${opened[name]} shown=${name === tab} handed=${handed} />`}
          </section>`)}
      </main>
      <footer>
        <aside class="law"><strong>${t("law.title")}</strong> ${t("law.text")}</aside>
        <nav aria-label=${t("links")}>
          <a href="docs">${t("docs")}</a> <a href="nnpm.js">nnpm.js</a>
          <a href="static/vendor/LICENSES.txt">${t("licences")}</a>
          ${service?.version && html`<span class="quiet">nnpm ${service.version}</span>`}
        </nav>
      </footer>
      ${asked && html`<${KeyDialog} error=${asked} known=${key} enter=${enter}
        close=${() => setAsked(null)} />`}
    <//>`;
}

function Tabs({ tab: current, choose }) {
  const { t } = useContext(App);
  const names = Object.keys(TABS);
  const move = (event) => {
    const back = document.documentElement.dir === "rtl" ? "ArrowRight" : "ArrowLeft";
    const at = names.indexOf(current);
    const to = {
      ArrowLeft: at + (back === "ArrowLeft" ? -1 : 1),
      ArrowRight: at + (back === "ArrowLeft" ? 1 : -1),
      Home: 0,
      End: names.length - 1,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const name = names[(to + names.length) % names.length];
    choose(name);
    document.getElementById(`tab-${name}`).focus();
  };
  return html`<div class="tabs" role="tablist" aria-label=${t("tabs")} onKeyDown=${move}>
    ${names.map((name) => html`<button key=${name} role="tab" id=${`tab-${name}`}
      aria-selected=${String(name === current)} aria-controls=${`panel-${name}`}
      tabindex=${name === current ? 0 : -1} onClick=${() => choose(name)}>
      ${t(`tab.${name}`)}</button>`)}
  </div>`;
}

function KeyDialog({ error, known, enter, close }) {
  const dialog = useRef();
  const [text, setText] = useState("");
  const { t } = useContext(App);
  useEffect(() => dialog.current.showModal(), []);
  const submit = (event) => {
    event.preventDefault();
    if (text.trim()) enter(text.trim());
  };
  return html`<dialog ref=${dialog} onClose=${close} aria-labelledby="key-title">
    <form onSubmit=${submit}>
      <h2 id="key-title">${t("key.title")}</h2>
      ${error.code && html`<p role="alert">${t(`error.${error.code}`)}</p>`}
      <p class="quiet">${t("key.kept")}</p>
      <label>${t("key.label")}
        <input type="password" name="key" autocomplete="off" spellcheck=${false} dir="ltr"
          value=${text} onInput=${(e) => setText(e.target.value)} autofocus /></label>
      <p class="row">
        <button class="primary" disabled=${!text.trim()}>${t("key.use")}</button>
        ${known && html`<button type="button" onClick=${() => enter("")}>${t("key.forget")}</button>`}
        <button type="button" onClick=${() => dialog.current.close()}>${t("close")}</button>
      </p>
    </form>
  </dialog>`;
}

const root = document.getElementById("app");
root.textContent = "";
render(html`<${Page} />`, root);
