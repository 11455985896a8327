// The packed series (their layout: data.py) and how they are drawn.
const chart = (() => {
  const meta = JSON.parse(document.getElementById("meta").textContent);
  const NS = "http://www.w3.org/2000/svg";
  const cache = new Map(); // cell -> promise of its series; the oldest go first
  const KEPT = 80;

  async function inflate(id) {
    const text = atob(document.getElementById(id).textContent);
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  function unpack(bytes, lines, runs) {
    const [count, size] = [lines.length * runs.length, runs.length];
    let at = 0;
    const planes = (width) => {
      const joined = new Uint8Array(count * width);
      for (let plane = 0; plane < width; plane++) for (let i = 0; i < count; i++) joined[i * width + plane] = bytes[at++];
      return joined.buffer;
    };
    const [value, baseline, tolerance] = [0, 0, 0].map(() => new Float32Array(planes(4)));
    const [low, high] = [0, 0].map(() => new Uint16Array(planes(2)));
    const environment = new Uint32Array(planes(4));
    const status = bytes.subarray(at, at + count);
    const all = lines.map(([fact, now, least, most, marks], n) => {
      const [metric, unit, better, relative, family] = meta.facts[fact];
      const part = (array) => array.subarray(n * size, (n + 1) * size);
      const end = (array) => Float64Array.from(part(array), (step) => (step ? least + ((step - 1) / 65533) * (most - least) : NaN));
      return { metric, unit, better, relative, family, now, marks: marks || [], runs, value: part(value), baseline: part(baseline),
        tolerance: part(tolerance), low: end(low), high: end(high), environment: part(environment), status: part(status) };
    });
    // The anchor is what `<metric>/anchor` was held against; without one, the baseline is its own anchor.
    const byName = new Map(all.map((one) => [one.metric, one]));
    for (const one of all) {
      const since = byName.get(one.metric + "/anchor");
      one.anchor = since ? one.baseline.map((base, i) => (Number.isFinite(since.baseline[i]) ? since.baseline[i] : base)) : one.baseline;
      one.moved = since ? one.anchor.some((value, i) => Number.isFinite(value) && value !== one.baseline[i]) : false;
    }
    return all;
  }

  function series(cell) {
    if (!cache.has(cell)) {
      const [, tier, lines] = meta.cells[cell];
      cache.set(cell, inflate("piece-" + cell).then((bytes) => unpack(bytes, lines, meta.tiers[tier][1])));
      if (cache.size > KEPT) cache.delete(cache.keys().next().value);
    }
    return cache.get(cell);
  }

  let environments = null;
  async function environmentOf(code) { // of a point: its number begins at 1
    environments ??= inflate("environments").then((bytes) => JSON.parse(new TextDecoder().decode(bytes)));
    const [texts, lists] = await environments;
    const pairs = code ? lists[code - 1] : [];
    return new Map(Array.from({ length: pairs.length / 2 }, (_, i) => [texts[pairs[2 * i]], texts[pairs[2 * i + 1]]]));
  }

  function svg(tag, attributes, parent) {
    const element = document.createElementNS(NS, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (parent) parent.append(element);
    return element;
  }

  function band(one, i) {
    const half = one.tolerance[i] * (one.relative ? Math.abs(one.baseline[i]) : 1);
    return [one.baseline[i] - half, one.baseline[i] + half];
  }

  // The range of what is drawn. A band that is much wider than the values is cut, so that these do not become one flat line.
  function extent(one, from, whiskers) {
    let [low, high] = [Infinity, -Infinity];
    const take = (value) => { if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); } };
    for (let i = from; i < one.value.length; i++) {
      take(one.value[i]);
      if (whiskers) { take(one.low[i]); take(one.high[i]); }
      if (one.moved) take(one.anchor[i]);
    }
    if (low > high) return [0, 1];
    const room = Math.max((high - low) * 2, Math.abs(high) * 1e-3) || 1;
    const [bottom, top] = [low - room, high + room];
    for (let i = from; i < one.value.length; i++) for (const edge of band(one, i)) take(Math.min(Math.max(edge, bottom), top));
    const edge = (high - low) * 0.06 || Math.abs(high) * 0.02 || 1;
    return [low - edge, high + edge];
  }

  // The area between two ends, which `ends` gives for a run. A run without them ends it; one that was not made does not.
  function area(one, from, x, y, ends) {
    let [path, above, below] = ["", [], []];
    const close = () => { if (above.length) path += "M" + above.join("L") + "L" + below.reverse().join("L") + "z"; [above, below] = [[], []]; };
    for (let i = from; i < one.value.length; i++) {
      const [low, high] = ends(one, i);
      if (Number.isFinite(low)) { above.push(`${x(i)} ${y(high)}`); below.push(`${x(i)} ${y(low)}`); } else if (one.status[i]) close();
    }
    close();
    return path;
  }

  function line(one, from, x, y, values) {
    let [path, pen] = ["", false];
    for (let i = from; i < values.length; i++) {
      if (Number.isFinite(values[i])) { path += `${pen ? "L" : "M"}${x(i)} ${y(values[i])}`; pen = true; } else if (one.status[i]) pen = false;
    }
    return path;
  }

  function changes(one, from) { // the runs before which the environment was another
    const places = [];
    let last = 0;
    for (let i = 0; i < one.value.length; i++) {
      if (!one.environment[i]) continue;
      if (last && one.environment[i] !== last && i >= from) places.push(i);
      last = one.environment[i];
    }
    return places;
  }

  function spark(one, nights) {
    const [width, height] = [120, 28]; // stretched to where it stands
    const from = Math.max(0, one.value.length - nights);
    const [low, high] = extent(one, from, false);
    const x = (i) => +(((i - from) / Math.max(one.value.length - 1 - from, 1)) * width).toFixed(1);
    const y = (value) => +(24 - ((Math.min(Math.max(value, low), high) - low) / (high - low)) * 23).toFixed(1);
    const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "spark", "aria-hidden": "true" });
    svg("path", { class: "band", d: area(one, from, x, y, band) }, picture);
    svg("path", { class: "env", d: changes(one, from).map((i) => `M${x(i)} 25v3`).join("") }, picture);
    if (one.moved) svg("path", { class: "anchor", d: line(one, from, x, y, one.anchor) }, picture);
    svg("path", { class: "trace", d: line(one, from, x, y, one.value) }, picture);
    for (const [event, run, , after] of one.marks) {
      if (run >= from && after !== null) svg("path", { class: "step " + meta.events[event][2], d: `M${x(run)} ${y(after)}h0` }, picture);
    }
    return picture;
  }

  function ticks(low, high, number) {
    const raw = (high - low) / number;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
    return Array.from({ length: 20 }, (_, n) => (Math.ceil(low / step) + n) * step).filter((tick) => tick <= high);
  }

  function text(value, unit = "") {
    if (!Number.isFinite(value)) return "not measured";
    if (unit === "fraction") return (value * 100).toFixed(2) + " %";
    const size = Math.abs(value);
    const digits = Number.isInteger(value) || size >= 1e5 ? value.toLocaleString("en", { maximumFractionDigits: 0 }) : size && size < 1e-4 ? value.toExponential(3) : String(+value.toPrecision(6));
    return unit ? `${digits} ${unit}` : digits;
  }

  return { meta, series, environmentOf, svg, band, extent, area, line, changes, spark, ticks, text };
})();
