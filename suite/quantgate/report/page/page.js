"use strict";
// What both pages share: dark and light, and copying of commands. Without it everything can still be read.
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
