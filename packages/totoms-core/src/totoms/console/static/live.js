// Reloads what is shown when something has changed. Nothing is reloaded while a person writes or has something open.
"use strict";
(() => {
  const note = document.getElementById("live");
  const current = document.querySelector("nav a[aria-current]");
  if (current) current.scrollIntoView({ block: "nearest", inline: "center" });
  const source = new EventSource("/live");
  const busy = () => {
    const active = document.activeElement;
    return (active && active.matches("input, textarea, select")) || document.querySelector("details[open]") ||
      !window.getSelection().isCollapsed;
  };
  source.onopen = () => { note.textContent = "live"; note.className = "on"; };
  source.onerror = () => { note.textContent = "not connected"; note.className = "off"; };
  source.onmessage = () => {
    if (!busy()) document.body.dispatchEvent(new Event("changed"));
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.activeElement.matches("input, textarea, select")) return;
    if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (search) { event.preventDefault(); search.focus(); }
    }
    const number = Number(event.key);
    const links = document.querySelectorAll("nav a");
    if (number >= 1 && number <= links.length) links[number - 1].click();
  });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.ask;
    if (question && !window.confirm(question)) { event.preventDefault(); event.stopPropagation(); }
  }, true);
})();
