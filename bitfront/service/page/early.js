// What does not wait for the modules: the chosen theme, before anything is drawn, and plotly.js, which
// is large: fetched at once where a chart comes first, else when there is nothing more urgent.
document.documentElement.dataset.theme = localStorage.getItem("bitfront-theme") ?? "";
const charts = /^#\/studies\/(?!.*\/new\b)/.test(location.hash);
const link = document.createElement("link");
Object.assign(link, { rel: charts ? "preload" : "prefetch", as: "script", href: new URL("plotly.js", document.currentScript.src) });
document.head.append(link);
