"use strict";
// The report's views of single domains. Names reach the page as text only, never as markup.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { visits, rows } = data;
  const SVG = document.querySelector("svg").namespaceURI;
  const overview = document.getElementById("overview");
  const detail = document.getElementById("domain");
  const title = document.title;
  const NONE = "–";

  // ---- derived from the columns -------------------------------------------------------
  const rowsOfVisit = visits.domain.map(() => []);
  const visitsOfDomain = data.domains.map(() => []);
  const usedBy = data.domains.map(() => []); // visits that learned from a domain's model
  visits.domain.forEach((domain, visit) => visitsOfDomain[domain].push(visit));
  rows.visit.forEach((visit, row) => rowsOfVisit[visit].push(row));
  const rowOf = (visit, method) => rowsOfVisit[visit].find((row) => rows.method[row] === method);
  const isInitial = (visit) => visits.round[visit] === 0;
  const own = visits.domain.map((_, visit) =>
    rowOf(visit, isInitial(visit) ? data.initial : data.main));
  own.forEach((row, visit) => {
    if (row === undefined || isInitial(visit)) return;
    rows.sources[row].forEach((domain) => usedBy[domain].push(visit));
  });
  const column = (name) => (visit) => (own[visit] === undefined ? null : rows[name][own[visit]]);
  const accuracy = column("accuracy");
  const gain = (visit) => {
    const reference = rowOf(visit, data.labelOnly);
    if (isInitial(visit) || reference === undefined || accuracy(visit) === null) return null;
    const before = rows.accuracy[reference];
    return before === null ? null : accuracy(visit) - before;
  };
  const bytes = (traffic, side) => {
    let sum = 0;
    for (let at = 0; at < traffic.length; at += 3) sum += traffic[at + side];
    return sum;
  };
  const spent = (visit, side) =>
    bytes(visits.system[visit], side)
    + (own[visit] === undefined ? 0 : bytes(rows.traffic[own[visit]], side));
  const failed = (visit) => rowsOfVisit[visit].some((row) => rows.error[row] >= 0);
  const seconds = (visit) => {
    const simulated = column("simulated")(visit);
    return simulated === null ? column("measured")(visit) : simulated;
  };
  const word = (words, number) => (number >= 0 ? words[number] : NONE);
  const name = (visit) => data.domains[visits.domain[visit]];

  // ---- numbers as text --------------------------------------------------------------------
  const percent = (share) => (share === null ? NONE : `${(share / 100).toFixed(1)} %`);
  const points = (share) => (share === null ? NONE
    : `${share < 0 ? "−" : "+"}${(Math.abs(share) / 100).toFixed(1)}`);
  const size = (count) => {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let at = 0;
    while (count >= 999.5 && at < 4) { count /= 1000; at += 1; }
    return `${at ? Number(count.toPrecision(3)) : Math.round(count)} ${units[at]}`;
  };
  const time = (ms) => {
    if (ms === null) return NONE;
    if (ms < 99500) return `${Number((ms / 1000).toPrecision(ms < 10000 ? 2 : 3))} s`;
    const [minutes, rest] = [Math.floor(Math.round(ms / 1000) / 60), Math.round(ms / 1000) % 60];
    const two = (count) => String(count).padStart(2, "0");
    return minutes < 60 ? `${minutes} min ${two(rest)} s`
      : `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  };
  const peers = (found) => (found ? `${found[1]} of ${found[0]}`
    + (found[2] ? `, ${found[2]} rejected` : "") : NONE);
  const roundName = (visit) => (isInitial(visit) ? "initial" : `round ${visits.round[visit]}`);

  // ---- elements ----------------------------------------------------------------------------
  const set = (node, attributes, children) => {
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };
  const el = (tag, attributes = {}, ...children) =>
    set(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) =>
    set(document.createElementNS(SVG, tag), attributes, children);
  const address = (domain) => `#domain=${encodeURIComponent(data.domains[domain])}`;
  const link = (domain) => el("a", { href: address(domain) }, data.domains[domain]);
  const card = (heading, ...children) =>
    el("section", { class: "card" }, el("h2", {}, heading), ...children);

  // ---- a table of visits: sorted, searched and paged, with only the shown rows drawn ---------
  const CELLS = [
    { key: "domain", head: "Domain", of: name, text: (visit) => link(visits.domain[visit]) },
    { key: "round", head: "Joined", of: (visit) => visits.round[visit], text: roundName,
      extra: true },
    { key: "device", head: "Device", of: (visit) => word(data.classes, visits.class[visit]),
      extra: true },
    { key: "model", head: "Model", extra: true,
      of: (visit) => word(data.architectures, column("architecture")(visit) ?? -1) },
    { key: "accuracy", head: data.scores[0], of: accuracy, text: (v) => percent(accuracy(v)) },
    { key: "gain", head: "Gain", of: gain, text: (visit) => points(gain(visit)) },
    { key: "sources", head: "Sources", extra: true,
      of: (visit) => (column("sources")(visit) || []).length },
    { key: "used", head: "Used by", of: (visit) => usedBy[visits.domain[visit]].length },
    { key: "peers", head: "Chosen by peers", extra: true,
      of: (visit) => (column("peers")(visit) || [0, 0])[1],
      text: (visit) => peers(column("peers")(visit)) },
    { key: "bytes", head: "Down", of: (visit) => spent(visit, 1), extra: true,
      text: (visit) => size(spent(visit, 1)) },
    { key: "time", head: "Time", of: seconds, extra: true, text: (visit) => time(seconds(visit)) },
  ];
  const WORDS = new Set(["domain", "round", "device", "model"]);
  const FILTERS = [
    ["every domain", () => true],
    ["target domains", (visit) => !isInitial(visit)],
    ["initial domains", isInitial],
    ["failed", failed],
    ["worse than label-only", (visit) => gain(visit) !== null && gain(visit) < 0],
  ];

  function visitTable(host, all, options) {
    const cells = CELLS.filter((cell) => !options.columns || options.columns.includes(cell.key));
    const state = { by: options.by, down: options.down, page: 0, text: "", filter: 0 };
    const body = el("tbody");
    const count = el("span", { class: "soft", role: "status", "aria-live": "polite" });
    const step = (words, by) => el("button", { type: "button",
      onclick: () => { state.page += by; draw(); } }, words);
    const before = step("Previous", -1);
    const after = step("Next", 1);
    const heads = cells.map((cell) => {
      const button = el("button", { type: "button", onclick: () => {
        state.down = state.by === cell.key ? !state.down : !WORDS.has(cell.key);
        state.by = cell.key;
        state.page = 0;
        draw();
      } }, cell.head);
      return el("th", { scope: "col", class: kind(cell) }, button);
    });
    function kind(cell) {
      return `${WORDS.has(cell.key) ? "text" : ""}${cell.extra ? " extra" : ""}`;
    }
    function line(visit) {
      const made = cells.map((cell, number) => el(number ? "td" : "th",
        { class: kind(cell), scope: number ? null : "row" },
        cell.text ? cell.text(visit) : String(cell.of(visit))));
      return el("tr", { class: failed(visit) ? "incomplete" : null }, ...made);
    }
    function draw() {
      const cell = CELLS.find((each) => each.key === state.by);
      const words = state.text.trim().toLowerCase();
      const kept = all.filter((visit) => FILTERS[state.filter][1](visit) && (!words
        || [name(visit), word(data.classes, visits.class[visit]), roundName(visit),
          word(data.architectures, column("architecture")(visit) ?? -1)]
          .some((text) => text.toLowerCase().includes(words))));
      const value = new Map(kept.map((visit) => [visit, cell.of(visit)]));
      kept.sort((one, other) => {
        const [a, b] = [value.get(one), value.get(other)];
        if (a === b) return one - other;
        if (a === null || b === null) return a === null ? 1 : -1; // what was not measured is last
        return (a < b ? -1 : 1) * (state.down ? -1 : 1);
      });
      const pages = Math.max(1, Math.ceil(kept.length / options.length));
      state.page = Math.min(Math.max(0, state.page), pages - 1);
      const first = state.page * options.length;
      const shown = kept.slice(first, first + options.length);
      body.replaceChildren(...shown.map(line));
      count.textContent = kept.length
        ? `${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")}`
          + ` of ${kept.length.toLocaleString("en")}`
        : "none";
      before.disabled = state.page === 0;
      after.disabled = state.page === pages - 1;
      before.hidden = after.hidden = pages === 1;
      heads.forEach((head, number) => {
        const sorted = cells[number].key === state.by;
        head.setAttribute("aria-sort",
          sorted ? (state.down ? "descending" : "ascending") : "none");
      });
    }
    const again = (change) => (event) => { change(event.target.value); state.page = 0; draw(); };
    const tools = options.search ? [el("div", { class: "tools" },
      el("label", {}, "Search ", el("input", { type: "search", autocomplete: "off",
        placeholder: "name, device, model", oninput: again((text) => { state.text = text; }) })),
      el("label", {}, "Show ", el("select", { onchange: again((at) => { state.filter = Number(at); }) },
        ...FILTERS.map(([words], at) => el("option", { value: at }, words)))))] : [];
    host.append(...tools,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.label },
        el("table", { class: "visits" }, el("thead", {}, el("tr", {}, ...heads)), body)),
      el("div", { class: "tools" }, before, after, count));
    draw();
  }

  // ---- one domain ---------------------------------------------------------------------------
  function neighbours(domain, sources, learners) {
    const most = 10;
    const width = Math.min(1020, Math.max(320, detail.clientWidth - 50));
    const best = [...learners].sort((a, b) => (gain(b) ?? -1e9) - (gain(a) ?? -1e9));
    const left = sources.slice(0, most);
    const right = best.slice(0, most);
    const height = 46 + 30 * Math.max(left.length, right.length, 2);
    const middle = (26 + height) / 2;
    const limit = Math.max(8, Math.floor(width / 30));
    const short = (text) => (text.length <= limit ? text
      : `${text.slice(0, limit / 2 - 1)}…${text.slice(-limit / 2 + 1)}`);
    const at = (number, length) => middle + (number - (length - 1) / 2) * 30;
    const edges = [];
    const nodes = [];
    const node = (x, y, other, anchor, note) => {
      const shift = anchor === "end" ? -12 : 12;
      nodes.push(svg("a", { href: address(other) },
        svg("circle", { cx: x, cy: y, r: 6, class: "dot" }),
        svg("text", { x: x + shift, y: y + 4, "text-anchor": anchor },
          short(data.domains[other]), svg("tspan", { class: "quiet", dx: 6 }, note))));
    };
    const [from, to] = [width * 0.3, width * 0.7];
    const curve = (x, y, x2, y2) => edges.push(svg("path", { class: "edge",
      d: `M${x} ${y}C${(x + x2) / 2} ${y} ${(x + x2) / 2} ${y2} ${x2} ${y2}` }));
    left.forEach((other, number) => {
      const y = at(number, left.length);
      curve(from, y, width / 2, middle);
      node(from, y, other, "end", "");
    });
    right.forEach((visit, number) => {
      const y = at(number, right.length);
      curve(width / 2, middle, to, y);
      node(to, y, visits.domain[visit], "start", width > 600 ? points(gain(visit)) : "");
    });
    const more = (count, how) => (count > most ? ` (${most} of ${count}${how})` : "");
    const head = (x, anchor, text) => svg("text", { x, y: 14, "text-anchor": anchor,
      class: "quiet" }, text);
    return el("figure", {}, svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `Sources of ${data.domains[domain]} and the target domains that learned from it`, class: "graph",
      style: `max-width:${width}px` },
      ...edges, svg("circle", { cx: width / 2, cy: middle, r: 10, class: "self" }),
      ...(left.length ? [head(from, "end", `sources${more(sources.length, "")}`)] : []),
      ...(right.length ? [head(width > 600 ? to : width, width > 600 ? "start" : "end",
        `target domains${more(learners.length, ", by gain")}`)] : []), ...nodes));
  }

  function methodTable(visit) {
    const heads = ["Method", data.scores[0], "Gain", data.scores[1], "Down", "Up", "Measured", "Simulated",
      "Memory", "Outcome"];
    const reference = rowOf(visit, data.labelOnly);
    const before = reference === undefined ? null : rows.accuracy[reference];
    const line = (row) => {
      const share = rows.accuracy[row];
      const cells = [percent(share),
        row === reference || share === null || before === null || isInitial(visit)
          ? NONE : points(share - before),
        typeof rows.f1[row] === "string" ? rows.f1[row] : percent(rows.f1[row]), size(bytes(rows.traffic[row], 1)), size(bytes(rows.traffic[row], 2)),
        time(rows.measured[row]), time(rows.simulated[row]),
        rows.memory[row] === null ? NONE : size(rows.memory[row] * 1000),
        rows.error[row] >= 0 ? data.errors[rows.error[row]] : "finished"];
      return el("tr", { class: row === own[visit] ? "main" : null },
        el("th", { scope: "row" }, data.methods[rows.method[row]]),
        ...cells.map((text, at) => el("td",
          at === cells.length - 1 ? { class: "text long" } : {}, text)));
    };
    return el("div", { class: "scroll", tabindex: "0" }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map((text, at) =>
        el("th", { scope: "col", class: at === heads.length - 1 ? "text" : null }, text)))),
      el("tbody", {}, ...rowsOfVisit[visit].map(line))));
  }

  function trafficBars(visit) {
    const all = own[visit] === undefined ? [] : rows.traffic[own[visit]];
    const parts = [...visits.system[visit], ...all];
    const lines = [];
    for (let at = 0; at < parts.length; at += 3) {
      lines.push([data.phases[parts[at]], parts[at + 1], parts[at + 2]]);
    }
    if (!lines.length) return el("p", { class: "soft" }, "No message was counted.");
    const most = Math.max(...lines.map(([, down, up]) => down + up)) || 1;
    return el("dl", { class: "bars" }, ...lines.flatMap(([phase, down, up]) => [
      el("dt", {}, phase),
      el("dd", {}, el("i", { style: `width:${(down + up) / most * 60}%;background:var(--${phase})` }),
        `${size(down)} down, ${size(up)} up`)]));
  }

  // A source's mixture coefficient: its mean, then its 5, 25, 50, 75 and 95 % quantiles.
  function mixtures(row, named) {
    const share = (thousandths) => `${(thousandths / 10).toFixed(1)} %`;
    const lines = rows.sources[row].map((source, at) =>
      [source, ...rows.mixture[row].slice(6 * at, 6 * at + 6)]);
    lines.sort((one, other) => other[1] - one[1]);
    const same = lines.every((line) => line[2] === line[6]);
    const picture = ([, mean, p5, p25, p50, p75, p95]) => svg("svg", { viewBox: "0 0 220 18",
      class: "spread", "aria-hidden": "true" },
      svg("path", { class: "axis", d: "M10 9H210" }),
      ...(same ? [] : [svg("path", { class: "whisker", d: `M${10 + p5 / 5} 9H${10 + p95 / 5}` }),
        svg("rect", { x: 10 + p25 / 5, y: 4, width: Math.max(1, (p75 - p25) / 5), height: 10 }),
        svg("path", { class: "median", d: `M${10 + p50 / 5} 3V15` })]),
      svg("circle", { cx: 10 + mean / 5, cy: 9, r: 4 }));
    const heads = [["Source"], ["Mean coefficient"], ...(same ? [] : [["90 % of samples", "extra"]]),
      ["0 to 100 %", "text"]];
    const table = el("div", { class: "scroll", tabindex: "0" }, el("table", {},
      el("thead", {}, el("tr", {}, ...heads.map(([text, kind]) =>
        el("th", { scope: "col", class: kind ?? null }, text)))),
      el("tbody", {}, ...lines.map((line) => el("tr", {},
        el("th", { scope: "row" }, link(line[0])), el("td", {}, share(line[1])),
        ...(same ? [] : [el("td", { class: "extra" },
          `${(line[2] / 10).toFixed(0)} to ${(line[6] / 10).toFixed(0)} %`)]),
        el("td", { class: "text" }, picture(line)))))));
    return [...(named ? [el("h3", {}, data.methods[rows.method[row]])] : []), table,
      el("p", { class: "soft" }, same ? "The mixture is the same for every sample."
        : "Dot: mean over the domain's samples. Box: middle half of the samples, with the median. "
          + "Line: all but 5 % at either end.")];
  }

  function dictionary(row) {
    const parts = rows.dictionary[row];
    const epochs = [];
    for (let at = 0; at < parts.length; at += 4) epochs.push(parts.slice(at, at + 4));
    const last = epochs[epochs.length - 1];
    const width = Math.min(760, Math.max(300, detail.clientWidth - 50));
    const [left, right, top, bottom] = [48, width - 12, 10, 170];
    const x = (epoch) => left + (right - left) * epoch / (last[0] || 1);
    const y = (thousandths) => bottom - (bottom - top) * thousandths / 1000;
    const kinds = [["unlabelled samples in the dictionary", "ship"],
      ["their mean quality", "register"], ["fused accuracy on held-out rows", "report"]];
    const axis = [0, 250, 500, 750, 1000].flatMap((at) => [
      svg("path", { class: "axis", d: `M${left} ${y(at)}H${right}` }),
      svg("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end", class: "quiet" },
        `${at / 10} %`)]);
    const lines = kinds.map(([, colour], kind) => svg("path", { class: "line",
      style: `stroke:var(--${colour})`,
      d: `M${epochs.map((each) => `${x(each[0]).toFixed(1)} ${y(each[kind + 1]).toFixed(1)}`).join("L")}` }));
    const words = kinds.map(([text], kind) => `${text} ${(last[kind + 1] / 10).toFixed(1)} %`);
    return el("figure", {}, svg("svg", { viewBox: `0 0 ${width} 200`, role: "img", class: "graph",
      "aria-label": `After ${last[0]} epochs: ${words.join(", ")}`, style: `max-width:${width}px` },
      ...axis, ...lines,
      ...[0, last[0]].map((epoch, at) => svg("text", { x: x(epoch), y: 192, class: "quiet",
        "text-anchor": at ? "end" : "start" }, at ? `epoch ${epoch}` : "start"))),
      el("figcaption", {}, ...kinds.flatMap(([, colour], kind) => [
        el("span", { class: "swatch", style: `background:var(--${colour})` }),
        `${words[kind]} at the end${kind < 2 ? ";  " : "."}`])));
  }

  function visitCards(visit) {
    const domain = visits.domain[visit];
    const row = own[visit];
    const facts = [["Joined", roundName(visit)],
      ["Device class", word(data.classes, visits.class[visit])],
      ["Link class", word(data.links, visits.link[visit])],
      ["Architecture", word(data.architectures, column("architecture")(visit) ?? -1)],
      ["Rows", `${visits.labelled[visit] ?? NONE} labelled, ${visits.unlabelled[visit] ?? NONE} `
        + `unlabelled, ${visits.test[visit] ?? NONE} to test`],
      ["Model", row !== undefined && rows.model[row] ? `${rows.model[row]}…` : NONE]];
    const fused = rowsOfVisit[visit].filter((each) => rows.mixture[each].length);
    const sources = row === undefined ? [] : rows.sources[row];
    const joined = sources.flatMap((source) => visitsOfDomain[source].slice(0, 1));
    const host = card("Sources");
    if (joined.length) {
      visitTable(host, joined, { by: "accuracy", down: true, length: 12, label: "Sources",
        columns: ["domain", "round", "device", "model", "accuracy", "used"] });
    } else {
      host.append(el("p", { class: "soft" }, isInitial(visit)
        ? "An initial domain learns from its own labels alone." : "It learned from no source."));
    }
    const learners = usedBy[domain];
    const served = card(
      `Target domains that learned from it (${learners.length.toLocaleString("en")})`);
    if (learners.length) {
      visitTable(served, learners, { by: "gain", down: true, length: 12,
        search: learners.length > 24, label: "Target domains that learned from it",
        columns: ["domain", "round", "device", "model", "accuracy", "gain"] });
    } else served.append(el("p", { class: "soft" }, "None in this run."));
    return [
      el("div", { class: "card" }, el("dl", { class: "facts" },
        ...facts.flatMap(([key, value]) => [el("dt", {}, key), el("dd", {}, value)]))),
      card("Methods on this domain", methodTable(visit)),
      ...(sources.length + learners.length
        ? [card("Knowledge transfers", neighbours(domain, sources, learners))] : []),
      host,
      ...(isInitial(visit) ? [] : [card("Mixture of the sources", ...(fused.length
        ? fused.flatMap((each) => mixtures(each, fused.length > 1))
        : [el("p", { class: "soft" }, "No method recorded its mixture on this domain.")]))]),
      ...rowsOfVisit[visit].filter((each) => rows.dictionary[each].length).map((each) =>
        card(`Knowledge dictionary of ${data.methods[rows.method[each]]} by epoch`, dictionary(each))),
      served, card("Bytes by phase", trafficBars(visit)),
    ];
  }

  function showDomain(domain) {
    const heading = el("h1", { tabindex: "-1" }, data.domains[domain]);
    const known = visitsOfDomain[domain];
    overview.hidden = true;
    detail.hidden = false;
    detail.replaceChildren(el("p", {}, el("a", { href: "#domains" }, "← All domains")), heading);
    detail.append(...(known.length ? known.flatMap((visit) => [
      ...(known.length > 1 ? [el("h2", { class: "visit" }, roundName(visit))] : []),
      ...visitCards(visit)]) : [el("p", {}, "This run has no result of it.")]));
    document.title = `${data.domains[domain]} – ${title}`;
    window.scrollTo(0, 0);
    heading.focus({ preventScroll: true });
  }

  let left = 0; // scroll position of the overview
  function route() {
    const wanted = /^#domain=(.*)$/.exec(location.hash);
    let domain = -1;
    if (wanted) {
      try { domain = data.domains.indexOf(decodeURIComponent(wanted[1])); } catch { domain = -1; }
    }
    if (domain >= 0) {
      if (!overview.hidden) left = window.scrollY;
      showDomain(domain);
      return;
    }
    if (overview.hidden) {
      overview.hidden = false;
      detail.hidden = true;
      detail.replaceChildren();
      document.title = title;
      window.scrollTo(0, left);
      const table = document.getElementById("domains");
      if (location.hash === "#domains") table.focus({ preventScroll: left > 0 });
    }
  }

  const everyone = visits.domain.map((_, visit) => visit);
  visitTable(document.getElementById("domain-table"), everyone,
    { by: "domain", down: false, length: 25, search: true, label: "Every domain" });
  const sources = everyone.filter((visit) => usedBy[visits.domain[visit]].length
    && visitsOfDomain[visits.domain[visit]][0] === visit);
  if (sources.length) {
    const host = document.getElementById("sources");
    host.append(el("h3", {}, "Sources by number of target domains"));
    visitTable(host, sources, { by: "used", down: true, length: 8, label: "Sources",
      columns: ["domain", "round", "device", "model", "accuracy", "used"] });
  }
  window.addEventListener("hashchange", route);
  route();

  // ---- which methods the figures and the table of methods show ---------------------------
  const shown = document.getElementById("shown");
  shown.hidden = false;
  shown.addEventListener("change", () => {
    const off = new Set([...shown.querySelectorAll("input:not(:checked)")].map((box) => box.value));
    document.querySelectorAll("[data-method]").forEach((node) =>
      node.classList.toggle("off", off.has(node.dataset.method)));
  });
})();
