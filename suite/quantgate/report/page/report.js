// What the filter of the report shows, and the links to its cells.
(() => {
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

  function show({ words, states, choice, active }) {
    if (!active && !gates) return "";
    if (!gates) read();
    let [shown, total] = [0, 0];
    const matching = new Set();
    for (const one of gates) {
      let here = 0;
      for (const { row, metric, state, text } of one.rows) {
        const match = (!states.size || states.has(state)) && (!choice || metric.split("/")[0] === choice) && words.every((w) => text.includes(w));
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
        (!choice || card.dataset.groups.split(" ").includes(choice)) && words.every((w) => text.includes(w)));
    }
    for (const section of document.querySelectorAll(".findings")) section.hidden = active && !section.querySelector(".card:not([hidden])");
    for (const fold of document.querySelectorAll(".fold")) fold.open = active;
    for (const row of document.querySelectorAll(".overview tbody tr")) row.hidden = active && !matching.has(row.dataset.cell);
    for (const point of document.querySelectorAll(".pt")) point.classList.toggle("dim", active && !matching.has(point.dataset.cell));
    nothing.hidden = shown > 0;
    return active ? `${shown.toLocaleString("en")} of ${total.toLocaleString("en")} gates` : "";
  }

  const view = filter(show, (address) => history.replaceState(null, "", address));

  function follow() {
    if (view.follow() || !/^#cell-\d+$/.test(location.hash)) return;
    const box = document.querySelector(location.hash);
    if (!box) return;
    box.hidden = false;
    box.open = true;
    box.scrollIntoView();
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
  follow();
})();
