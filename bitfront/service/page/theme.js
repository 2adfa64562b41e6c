// The chosen theme, set before anything is drawn.
document.documentElement.dataset.theme = localStorage.getItem("bitfront-theme") ?? "";
