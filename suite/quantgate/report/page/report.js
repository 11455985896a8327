// The filter of the report: words, a metric group, states; kept in the address, so that a view can be sent to others.
(() => {
  const form = document.querySelector(".filter");
  const [search, group] = [form.querySelector("input"), form.querySelector("select")];
  const buttons = [...form.querySelectorAll("[data-state]")];
  const output = form.querySelector("output");
  const nothing = document.querySelector(".nothing");
  const openAtMost = 12; // cells that a filter opens
  let gates = null; // of each cell: its element and rows; read when the first filter needs it

  function read() {
    gates = [...document.querySelectorAll("details.gates")].map((box) => ({
      box, cell: box.dataset.cell, wasOpen: box.open,
      rows: [...box.querySelectorAll("tbody")].map((row) => {
        const metric = row.rows[0].cells[0].textContent;
        return { row, metric, state: row.className, text: (box.dataset.cell + " " + row.textContent).toLowerCase() };
      }),
    }));
  }

  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const states = new Set(buttons.filter((b) => b.ariaPressed === "true").map((b) => b.dataset.state));
    const active = words.length > 0 || states.size > 0 || group.value !== "";
    if (!active && !gates) return;
    if (!gates) read();
    let [shown, total] = [0, 0];
    const matching = new Set();
    for (const one of gates) {
      let here = 0;
      for (const { row, metric, state, text } of one.rows) {
        const match = (!states.size || states.has(state)) && (!group.value || metric.split("/")[0] === group.value) && words.every((w) => text.includes(w));
        row.hidden = !match;
        here += match;
      }
      one.matches = here;
      if (here) matching.add(one.cell);
      one.box.hidden = here === 0;
      shown += here;
      total += one.rows.length;
    }
    for (const one of gates) one.box.open = active ? matching.size <= openAtMost && one.matches > 0 : one.wasOpen;
    for (const card of document.querySelectorAll(".card")) {
      const text = card.textContent.toLowerCase();
      card.hidden = !((!states.size || [...states].some((s) => card.classList.contains(s) || card.querySelector("tbody." + s))) &&
        (!group.value || card.dataset.groups.split(" ").includes(group.value)) && words.every((w) => text.includes(w)));
    }
    for (const section of document.querySelectorAll(".findings")) section.hidden = active && !section.querySelector(".card:not([hidden])");
    for (const fold of document.querySelectorAll(".fold")) fold.open = active;
    for (const row of document.querySelectorAll(".overview tbody tr")) row.hidden = active && !matching.has(row.dataset.cell);
    for (const point of document.querySelectorAll(".pt")) point.classList.toggle("dim", active && !matching.has(point.dataset.cell));
    nothing.hidden = shown > 0;
    output.textContent = active ? `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} gates` : "";
    const query = new URLSearchParams();
    if (words.length) query.set("q", search.value);
    if (group.value) query.set("metric", group.value);
    if (states.size) query.set("state", [...states].join(","));
    history.replaceState(null, "", active ? "#?" + query : location.pathname + location.search);
  }

  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(apply, 120); });
  form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
  group.addEventListener("change", apply);
  for (const button of buttons) {
    button.addEventListener("click", () => { button.ariaPressed = String(button.ariaPressed !== "true"); apply(); });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) { event.preventDefault(); search.focus(); }
    if (event.key === "Escape" && document.activeElement === search) { search.value = ""; apply(); }
  });

  function follow() {
    if (location.hash.startsWith("#?")) {
      const query = new URLSearchParams(location.hash.slice(2));
      search.value = query.get("q") || "";
      group.value = query.get("metric") || "";
      const states = (query.get("state") || "").split(",");
      for (const button of buttons) button.ariaPressed = String(states.includes(button.dataset.state));
      apply();
    } else if (/^#cell-\d+$/.test(location.hash)) {
      const box = document.querySelector(location.hash);
      if (!box) return;
      box.hidden = false;
      box.open = true;
      box.scrollIntoView();
    }
  }
  addEventListener("hashchange", follow);

  for (const figure of document.querySelectorAll(".frontier")) {
    const picked = figure.querySelector(".picked");
    const points = [...figure.querySelectorAll(".pt")];
    const pick = (event) => {
      const cell = event.target.closest(".pt")?.dataset.cell;
      for (const point of points) point.classList.toggle("on", point.dataset.cell === cell);
      picked.textContent = cell ? event.target.closest(".pt").querySelector("title").textContent : "";
    };
    figure.addEventListener("pointerover", pick);
    figure.addEventListener("click", pick);
  }
  form.hidden = false;
  follow();
})();
