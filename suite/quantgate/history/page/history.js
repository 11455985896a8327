// The grid, its filter and the large chart. A view has an address, so that it can be sent to others.
(() => {
  const { meta, svg, text } = chart;
  const NIGHTS = 90;
  const rows = [...document.querySelectorAll(".row[data-n]")];

  // Lines are drawn when their row comes near the screen.
  const drawn = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      drawn.unobserve(target);
      const preview = target.matches("article");
      chart.series(+(preview ? target.querySelector(".preview") : target).dataset.n).then((all) => {
        for (const slot of target.querySelectorAll("a.slot")) {
          const one = all.find((each) => each.metric === slot.dataset.m);
          slot.querySelector(".line").replaceChildren(chart.spark(one, preview ? 365 : NIGHTS));
          slot.title = one.metric;
        }
      });
    }
  }, { rootMargin: "300px" });
  for (const row of rows) drawn.observe(row);
  for (const card of document.querySelectorAll("article.event")) drawn.observe(card);

  // The filter.
  const openEvents = new Set(meta.events.flatMap(([, open], number) => (open ? [number] : [])));

  function show({ words, states, choice, active }) {
    const chosen = meta.families.indexOf(choice);
    let shown = 0;
    for (const row of rows) {
      const [cell, , lines] = meta.cells[row.dataset.n];
      const families = new Set();
      for (const [fact, now, , , marks] of lines) {
        const [metric, , , , of] = meta.facts[fact];
        if (chosen >= 0 && of !== chosen) continue;
        const state = meta.statuses[now][0];
        const inEvent = states.has("event") && (marks || []).some(([event]) => openEvents.has(event));
        if (states.size && !states.has(state) && !inEvent) continue;
        const hay = `${cell} ${metric} ${state}`.toLowerCase();
        if (words.every((word) => hay.includes(word))) families.add(of);
      }
      row.hidden = families.size === 0;
      shown += families.size > 0;
      [...row.querySelectorAll(".slot")].forEach((slot, number) => slot.classList.toggle("dim", active && !families.has(number)));
    }
    const hasWords = (element) => words.every((word) => element.textContent.toLowerCase().includes(word));
    for (const card of document.querySelectorAll("article.event")) card.hidden = !hasWords(card);
    for (const point of document.querySelectorAll(".pt")) point.classList.toggle("dim", !words.every((word) => point.dataset.cell.toLowerCase().includes(word)));
    document.querySelector(".nothing").hidden = shown > 0;
    return active ? `${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} cells` : "";
  }

  let home = "#";
  const view = filter(show, (address) => {
    home = address;
    if (!dialog.open) history.replaceState(null, "", home);
  });

  // The large chart.
  const dialog = document.querySelector("dialog");
  const [plot, box, choose] = [dialog.querySelector(".plot"), dialog.querySelector(".point"), dialog.querySelector(".choose select")];
  const ranges = [...dialog.querySelectorAll("[data-runs]")];
  let shown = null; // what the dialog shows: { cell, all, one, nights, x, from, run }

  async function open(cell, metric) {
    const all = await chart.series(cell);
    const row = document.querySelector(`.row[data-n="${cell}"]`);
    metric ||= (row.querySelector(".slot.event") || row.querySelector("a.slot")).dataset.m;
    const one = all.find((each) => each.metric === metric) || all[0];
    dialog.querySelector("h3").textContent = meta.cells[cell][0];
    choose.replaceChildren(...meta.families.map((name, number) => {
      const group = document.createElement("optgroup");
      group.label = name;
      for (const each of all) if (each.family === number) {
        const state = meta.statuses[each.now][1] !== "pass" ? `  (${meta.statuses[each.now][1]})` : "";
        group.append(new Option(each.metric + state, each.metric, false, each === one));
      }
      return group;
    }).filter((group) => group.children.length));
    shown = { cell, all, one, nights: shown ? shown.nights : 365 };
    if (!dialog.open) dialog.showModal();
    draw();
    plot.focus();
  }

  function draw() {
    const { one, nights } = shown;
    for (const button of ranges) button.ariaPressed = String(+button.dataset.runs === nights);
    const narrow = innerWidth < 700;
    const [width, height, left, right, top, bottom] = narrow ? [420, 300, 58, 412, 12, 262] : [1040, 380, 74, 1026, 14, 336];
    const last = one.value.length - 1;
    const from = nights ? Math.max(0, one.value.length - nights) : 0;
    const [low, high] = chart.extent(one, from, true);
    const x = (i) => +(left + ((i - from) / Math.max(last - from, 1)) * (right - left)).toFixed(1);
    const y = (value) => +(bottom - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * (bottom - top)).toFixed(1);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${one.metric} over ${last - from + 1} runs` });
    const grid = svg("g", { class: "grid" }, picture);
    for (const tick of chart.ticks(low, high, 5)) {
      svg("path", { d: `M${left} ${y(tick)}H${right}` }, grid);
      svg("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, picture).textContent = text(tick, one.unit === "fraction" ? "fraction" : "");
    }
    const dates = narrow ? 3 : 6;
    for (let n = 0; n <= dates; n++) {
      const i = Math.round(from + ((last - from) * n) / dates);
      svg("text", { x: x(i), y: bottom + 20, "text-anchor": n === 0 ? "start" : n === dates ? "end" : "middle" }, picture).textContent = meta.runs[one.runs[i]][0].slice(0, 10);
    }
    const many = last - from > 120; // then intervals are one area, and only what is no pass is a dot
    svg("path", { class: "band", d: chart.area(one, from, x, y, chart.band) }, picture);
    svg("path", { class: "base", d: chart.line(one, from, x, y, one.baseline) }, picture);
    if (one.moved) {
      svg("path", { class: "anchor", d: chart.line(one, from, x, y, one.anchor) }, picture);
      const at = one.anchor.findLastIndex((value) => Number.isFinite(value));
      svg("text", { class: "anchor-word", x: right, y: y(one.anchor[at]) + (one.anchor[at] > one.baseline[at] ? -5 : 14), "text-anchor": "end" }, picture).textContent = "anchor";
    }
    svg("path", { class: "env", d: chart.changes(one, from).map((i) => `M${x(i)} ${bottom}V${top}`).join("") }, picture);
    let whiskers = "";
    for (let i = from; i <= last; i++) if (one.high[i] > one.low[i]) whiskers += `M${x(i)} ${y(one.low[i])}V${y(one.high[i])}`;
    if (many) svg("path", { class: "ribbon", d: chart.area(one, from, x, y, (_, i) => [one.low[i], one.high[i]]) }, picture);
    else svg("path", { class: "whisker", d: whiskers }, picture);
    svg("path", { class: "trace", d: chart.line(one, from, x, y, one.value) }, picture);
    for (const [event, run, before, after, back] of one.marks) {
      if (after === null || before === null) continue;
      const [begin, end] = [Math.max(run, from), back >= 0 ? back : last];
      const name = "level " + meta.events[event][2];
      const rise = run >= from ? `${y(before)}V` : "";
      if (begin <= end) svg("path", { class: name, d: `M${x(begin)} ${rise}${y(after)}H${x(end)}` }, picture);
    }
    for (let i = from; i <= last; i++) {
      if (!Number.isFinite(one.value[i])) continue;
      const state = meta.statuses[one.status[i] - 1]?.[0];
      const plain = state === "pass" || !state;
      if (plain && many) continue;
      svg("circle", { class: plain ? "dotted" : "dot " + state, cx: x(i), cy: y(one.value[i]), r: plain ? 1.8 : 3.2 }, picture);
    }
    const cursor = svg("path", { class: "cursor" }, picture);
    const dot = svg("circle", { class: "cursor-dot", r: 5, cx: -20, cy: 0 }, picture);
    Object.assign(shown, { from, last, move(i) {
      shown.run = i;
      cursor.setAttribute("d", `M${x(i)} ${top}V${bottom}`);
      dot.setAttribute("cx", Number.isFinite(one.value[i]) ? x(i) : -20);
      dot.setAttribute("cy", Number.isFinite(one.value[i]) ? y(one.value[i]) : 0);
      describe(i);
    } });
    picture.addEventListener("pointermove", (event) => {
      const place = (event.offsetX / picture.clientWidth) * width;
      const i = Math.round(from + ((place - left) / (right - left)) * (last - from));
      if (i >= from && i <= last && i !== shown.run) shown.move(i);
    });
    plot.replaceChildren(picture);
    const marked = one.marks.filter(([, run]) => run >= from).at(-1);
    shown.move(marked ? marked[1] : last);
  }

  function line(words, small) {
    const paragraph = document.createElement("p");
    paragraph.textContent = words.filter(Boolean).join(" · ");
    if (small) paragraph.className = "small";
    return paragraph;
  }

  async function describe(i) {
    const { one } = shown;
    const [time, commit, machine] = meta.runs[one.runs[i]];
    const state = one.status[i] ? meta.statuses[one.status[i] - 1][1] : "not in this run";
    const interval = one.high[i] > one.low[i] ? `${text(one.low[i], one.unit)} to ${text(one.high[i], one.unit)}` : "";
    const [base, tolerance] = [one.baseline[i], one.tolerance[i]];
    const share = one.relative && base ? (one.value[i] - base) / Math.abs(base) : NaN;
    const change = Number.isFinite(share) ? `${share >= 0 ? "+" : ""}${(share * 100).toFixed(2)} %` : "";
    const since = one.moved && Number.isFinite(one.anchor[i]) && `anchor ${text(one.anchor[i], one.unit)}`;
    const lines = [
      line([time, commit && `commit ${commit}`, state]),
      line([`${text(one.value[i], one.unit)}`, interval && `interval ${interval}`, Number.isFinite(base) && `baseline ${text(base, one.unit)}`, change,
        Number.isFinite(tolerance) && `tolerance ${one.relative ? +(tolerance * 100).toPrecision(3) + " %" : text(tolerance, one.unit)}`, since]),
    ];
    for (const [event, run, before, after] of one.marks) if (run === i) lines.push(line([`${meta.events[event][2]}: ${text(before, one.unit)} → ${text(after, one.unit)}`, `event ${meta.events[event][0]}`]));
    lines.push(line([meta.machines[machine]], true));
    box.replaceChildren(...lines);
    let before = i - 1;
    while (before >= 0 && !one.environment[before]) before--;
    const [old, now] = await Promise.all([chart.environmentOf(one.environment[before] || 0), chart.environmentOf(one.environment[i])]);
    if (!lines[0].isConnected) return; // another point is shown by now
    const differ = before >= 0 && one.environment[before] !== one.environment[i] && one.environment[i];
    const names = differ ? [...new Set([...old.keys(), ...now.keys()])].filter((name) => old.get(name) !== now.get(name)) : [];
    const news = names.map((name) => `${name} ${old.get(name) ?? "-"} → ${now.get(name) ?? "-"}`);
    const versions = ["torch", "transformers", "llama-cpp-python", "bitsandbytes"].filter((name) => now.has(name)).map((name) => `${name} ${now.get(name)}`);
    box.append(line(news.length ? ["changed since the run before: " + news.join(", ")] : versions, !news.length));
  }

  choose.addEventListener("change", () => { location.hash = `#c${shown.cell}/${encodeURIComponent(choose.value)}`; });
  for (const button of ranges) button.addEventListener("click", () => { shown.nights = +button.dataset.runs; draw(); });
  addEventListener("resize", () => { if (dialog.open) draw(); });
  plot.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    shown.move(Math.min(Math.max(shown.run + step, shown.from), shown.last));
  });
  dialog.addEventListener("close", () => history.replaceState(null, "", home));
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  function follow() {
    const match = /^#c(\d+)(?:\/(.+))?$/.exec(location.hash);
    if (match && +match[1] < meta.cells.length) {
      let metric = "";
      try { metric = decodeURIComponent(match[2] || ""); } catch { /* typed by hand: the first one is shown */ }
      return void open(+match[1], metric);
    }
    if (dialog.open) dialog.close();
    view.follow();
  }
  addEventListener("hashchange", follow);
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", view.form.offsetHeight + "px")).observe(view.form);
  follow();
})();
