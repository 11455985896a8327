"use strict";
// What both pages share: dark and light, copying of commands, the filter. Without it everything can still be read.
(() => {
  const root = document.documentElement;
  const toggle = document.querySelector(".theme");
  const dark = () => (root.style.colorScheme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const show = () => { toggle.textContent = dark() ? "light" : "dark"; };
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("quantgate-theme", value);
      return localStorage.getItem("quantgate-theme");
    } catch { return null; } // storage may be forbidden
  };
  if (toggle) {
    toggle.hidden = false;
    toggle.setAttribute("aria-label", "Change between dark and light");
    if (stored()) root.style.colorScheme = stored();
    show();
    toggle.addEventListener("click", () => {
      root.style.colorScheme = dark() ? "light" : "dark";
      stored(root.style.colorScheme);
      show();
      dispatchEvent(new Event("themechange"));
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { show(); dispatchEvent(new Event("themechange")); });
  }
  for (const box of document.querySelectorAll(".command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "copy";
    button.addEventListener("click", async () => {
      const code = box.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "copied";
      } catch { getSelection().selectAllChildren(code); } // a file that is not served may not use the clipboard
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
    box.append(button);
  }
})();

// The filter: words, one choice, states. They are kept in the address, so that a view can be sent to others.
// show: shows what matches these, and returns what the output says. keep: takes the address.
function filter(show, keep) {
  const form = document.querySelector(".filter");
  const [search, select] = [form.querySelector("input"), form.querySelector("select")];
  const buttons = [...form.querySelectorAll("[data-state]")];

  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(buttons.filter((b) => b.ariaPressed === "true").map((b) => b.dataset.state));
    const choice = select.value;
    const active = words.length > 0 || states.size > 0 || choice !== "";
    form.querySelector("output").textContent = show({ words, states, choice, active });
    const query = new URLSearchParams();
    if (words.length) query.set("q", search.value);
    if (choice) query.set("metric", choice);
    if (states.size) query.set("state", [...states].join(","));
    keep(active ? "#?" + query : "#");
  }

  function follow() { // takes the view from the address; returns whether it has one
    if (!location.hash.startsWith("#?")) return false;
    const query = new URLSearchParams(location.hash.slice(2));
    search.value = query.get("q") || "";
    select.value = query.get("metric") || "";
    const states = (query.get("state") || "").split(",");
    for (const button of buttons) button.ariaPressed = String(states.includes(button.dataset.state));
    apply();
    return true;
  }

  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  select.addEventListener("change", apply);
  for (const button of buttons) {
    button.addEventListener("click", () => { button.ariaPressed = String(button.ariaPressed !== "true"); apply(); });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); }
    if (event.key === "Escape" && document.activeElement === search) { search.value = ""; apply(); }
  });
  form.hidden = false;
  return { form, follow };
}
