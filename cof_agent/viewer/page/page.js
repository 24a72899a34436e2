"use strict";
// Draws the page from its data block. All text goes in as text nodes; cards are built when they come near the screen.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const records = data.records;
  const problems = new Map(data.problems.flatMap(([text, images]) => images.map((number) => [number, text])));
  const main = document.getElementById("cards");
  const STOPS = {
    answered: "Answered", max_zooms: "Out of zooms", truncated: "Cut off", malformed: "Malformed", error: "Error",
  };
  const VERDICTS = [["", "All"], ["right", "Right"], ["wrong", "Wrong"], ["none", "Not scored"]];
  const verdictOf = (record) => (record.right === true ? "right" : record.right === false ? "wrong" : "none");
  const VALUE = {
    verdict: verdictOf,
    stop: (record) => record.stop,
    category: (record) => record.category,
    zooms: (record) => String(record.zooms),
    policy: (record) => record.policy,
  };

  // --- small things

  function el(tag, options, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }

  function svg(tag, attributes) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  }

  const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
  const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
  const hue = (k) => data.palette[(k - 1) % data.palette.length];

  function inkOn(color) {
    const linear = [1, 3, 5].map((at) => {
      const level = parseInt(color.slice(at, at + 2), 16) / 255;
      return level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.42 ? "#000" : "#fff";
  }

  function tag(k, extra = "") {
    const node = el("span", { class: `tag ${extra}`, "data-k": k }, String(k));
    node.style.background = hue(k);
    node.style.color = inkOn(hue(k));
    return node;
  }

  // --- pictures with boxes

  // Edges are [x0, y0, x1, y1] in source pixels.
  const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
  const within = (a, b) => a[0] >= b[0] - 1 && a[1] >= b[1] - 1 && a[2] <= b[2] + 1 && a[3] <= b[3] + 1;
  const meet = (a, b) => a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3];

  function rect(kind, [x0, y0, x1, y1], color) {
    const node = svg("rect", { class: kind, x: x0, y: y0, width: x1 - x0, height: y1 - y0 });
    if (color) node.setAttribute("stroke", color);
    return node;
  }

  // The picture of view `k` of a record, with the boxes of the zooms that lie inside it and of what the question needs.
  function picture(record, k, frame, tagged) {
    const view = record.views[k];
    const [x0, y0, x1, y1] = view.region;
    frame.style.aspectRatio = `${x1 - x0} / ${y1 - y0}`;
    const block = document.getElementById(`i${view.image}`);
    if (block) {
      const alt = k === 0 ? "The whole image" : `Crop ${k}`;
      frame.append(el("img", { alt, src: `data:image/webp;base64,${block.textContent}` }));
    } else {
      frame.append(el("span", { class: "lost" }, el("span", {}, problems.get(view.image) || "This image is not on the page.")));
    }
    const drawing = svg("svg", { viewBox: `${x0} ${y0} ${x1 - x0} ${y1 - y0}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    for (const box of record.boxes.filter((box) => meet(box, view.region))) {
      drawing.append(rect("truth-under", box), rect("truth-over", box));
    }
    const zones = record.views
      .map((other, index) => [index, other.region])
      .filter(([index, region]) => index > k && within(region, view.region) && (k === 0 || area(region) < 0.8 * area(view.region)));
    for (const [index, region] of zones) {
      const zone = svg("g", { class: "zone", "data-k": index });
      zone.append(rect("edge", region), rect("halo", region), rect("hue fill", region, hue(index)));
      drawing.append(zone);
    }
    frame.append(drawing);
    if (tagged) placeTags(frame, zones, view.region);
    return frame;
  }

  // Numbers stand outside a corner of their box where there is room and no other number. Room is judged for a frame
  // about 700 pixels wide; the number itself hangs on the box's corner, so that it stays there at any size.
  function placeTags(frame, zones, [x0, y0, x1, y1]) {
    const unit = (x1 - x0) / 700, high = 23 * unit, taken = [];
    for (const [k, [left, top, right, bottom]] of zones) {
      const wide = (k > 9 ? 30 : 23) * unit;
      // A corner of the box, and the share of the number's width and height by which the number is moved from it.
      const places = [
        [left, top, 0, -1], [right, top, -1, -1], [left, bottom, 0, 0], [right, bottom, -1, 0],
        [left, top, -1, 0], [right, top, 0, 0], [left, top, 0, 0], [right, bottom, -1, -1],
      ].map((place) => {
        const [x, y] = [place[0] + place[2] * wide, place[1] + place[3] * high];
        return { place, edges: [x, y, x + wide, y + high] };
      });
      const room = places.filter(({ edges }) => within(edges, [x0, y0, x1, y1]));
      const free = room.filter(({ edges }) => !taken.some((other) => meet(edges, other)));
      const { place: [x, y, dx, dy], edges } = free[0] || room[0] || places[6];
      taken.push(edges);
      const node = tag(k);
      node.style.left = `${((x - x0) / (x1 - x0)) * 100}%`;
      node.style.top = `${((y - y0) / (y1 - y0)) * 100}%`;
      node.style.transform = `translate(${dx * 100}%, ${dy * 100}%)`;
      frame.append(node);
    }
  }

  function highlight(card, k) {
    const frame = card.querySelector(".overview .frame");
    if (!frame) return;
    frame.classList.toggle("active", k !== null);
    for (const node of frame.querySelectorAll("[data-k]")) node.classList.toggle("on", node.dataset.k === String(k));
  }

  const dialog = document.getElementById("large");
  function enlarge(record, k) {
    const [x0, y0, x1, y1] = record.views[k].region;
    const frame = el("div", { class: "frame" });
    frame.style.width = `min(96vw, ${(93 * (x1 - x0)) / (y1 - y0)}vh)`;
    dialog.replaceChildren(picture(record, k, frame, true));
    dialog.showModal();
  }
  dialog.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.replaceChildren());

  // --- one card

  function build(card) {
    const record = records[card.dataset.index];
    const inside = el("div", { class: "inside" }, ask(record), choices(record), outcome(record), look(record, card), foot(record, card));
    card.replaceChildren(inside);
    card.classList.add("built");
    card.style.minHeight = "";
  }

  function ask(record) {
    const verdict = verdictOf(record);
    const words = VERDICTS.find(([value]) => value === verdict)[1];
    return el("div", { class: "ask" },
      el("h2", { class: "question", dir: "auto" }, record.question || "(no question)"),
      el("span", { class: `badge ${verdict}` }, words));
  }

  function choices(record) {
    if (!record.choices.length) return null;
    const truths = record.truth.map(([, choice]) => choice);
    const chosen = record.answer ? record.answer[1] : null;
    return el("ol", { class: "choices" }, record.choices.map(([letter, text], index) => {
      const kind = truths.includes(index) ? "true" : index === chosen && record.right === false ? "false" : "";
      return el("li", { class: kind, dir: "auto" }, el("b", {}, letter), el("span", {}, text));
    }));
  }

  function spelled(record, [text, choice]) {
    return choice === null || !record.choices[choice] ? text : record.choices[choice].join(". ");
  }

  function outcome(record) {
    const verdict = record.right === null ? "" : verdictOf(record);
    const answer = record.answer
      ? el("dd", { class: verdict, dir: "auto" }, spelled(record, record.answer))
      : el("dd", { class: "missing" }, "none");
    const list = el("dl", { class: "outcome" }, el("div", {}, el("dt", {}, "Answer"), answer));
    if (record.truth.length) {
      const truth = record.truth.map((one) => spelled(record, one)).join("  or  ");
      list.append(el("div", {}, el("dt", {}, "Truth"), el("dd", { dir: "auto" }, truth)));
    }
    return list;
  }

  function look(record, card) {
    const steps = el("ol", { class: "steps" }, record.turns.map((turn) => turnItem(record, turn, card)));
    if (record.left_out) steps.append(el("li", { class: "turn plain fine" }, `${plural(record.left_out, "more turn")} left out for the size of the page.`));
    if (record.error) steps.append(el("li", { class: "turn plain" }, told("error", "The run failed", record.error)));
    return el("div", { class: "look" }, overview(record), steps);
  }

  function overview(record) {
    if (!record.views.length) {
      const frame = el("div", { class: "frame" }, el("span", { class: "lost" }, el("span", {}, `${record.file || "The image"} was not shown to the model.`)));
      frame.style.aspectRatio = "16 / 9";
      return el("figure", { class: "overview" }, frame);
    }
    const [width, height] = record.size;
    const label = "Enlarge the image";
    const frame = el("button", { type: "button", class: `frame ${width >= height ? "wide" : ""}`, "aria-label": label, onclick: () => enlarge(record, 0) });
    frame.style.width = `min(100%, ${(72 * width) / height}vh)`;
    const [shownWidth, shownHeight] = record.views[0].shown;
    const words = `${width.toLocaleString("en")} × ${height.toLocaleString("en")} pixels, shown to the model at ${shownWidth} × ${shownHeight}`;
    const caption = el("figcaption", {}, words);
    if (record.boxes.length) caption.append(el("span", { class: "dash" }), "what the question is about");
    return el("figure", { class: "overview" }, picture(record, 0, frame, true), caption);
  }

  function turnItem(record, turn, card) {
    const crops = turn.steps.filter((step) => record.views[step.view]).map((step) => crop(record, step, card));
    const says = el("div", { class: "says" }, thought(turn.thought), turn.steps.map((step) => result(record, step)));
    if (turn.more) says.append(el("p", { class: "fine" }, `${plural(turn.more, "more action")} in this turn.`));
    const broken = turn.steps.some((step) => step.kind === "malformed");
    const spent = [];
    if (turn.tokens[1] !== null) spent.push(plural(turn.tokens[1], "token"));
    if (turn.seconds !== null) spent.push(`${number(turn.seconds)} s`);
    says.append(el("details", { open: broken ? "" : null }, el("summary", {}, ["As written", ...spent].join(" · ")), el("pre", { dir: "auto" }, turn.text)));
    return el("li", { class: crops.length ? "turn" : "turn plain" }, crops.length ? el("div", { class: "crops" }, crops) : null, says);
  }

  function thought(text) {
    if (!text) return null;
    const paragraph = el("p", { class: "thought", dir: "auto" }, text);
    if (text.length < 700) return paragraph;
    paragraph.classList.add("long");
    const more = el("button", { type: "button", class: "more", onclick: () => { paragraph.classList.remove("long"); more.remove(); } }, "Show all of it");
    return [paragraph, more];
  }

  function crop(record, step, card) {
    const k = step.view;
    const frame = el("button", {
      type: "button", class: "frame crop", "aria-label": `Enlarge crop ${k}`,
      onclick: () => enlarge(record, k),
      onmouseenter: () => highlight(card, k), onmouseleave: () => highlight(card, null),
      onfocus: () => highlight(card, k), onblur: () => highlight(card, null),
    });
    frame.style.setProperty("--hue", hue(k));
    const [x0, y0, x1, y1] = record.views[k].region;
    frame.style.width = `min(100%, ${(300 * (x1 - x0)) / (y1 - y0)}px)`;
    picture(record, k, frame, false).append(tag(k, "own"));
    return frame;
  }

  // What came of one action.
  function result(record, step) {
    if (step.kind === "answer") return el("p", { class: "said", dir: "auto" }, el("span", {}, "Answers"), step.text);
    const parts = [];
    if (step.kind === "malformed") parts.push(told("malformed", "Not an action", step.text));
    const asked = step.asked ? `${step.asked} of ${step.of ? `image ${step.of}` : "the overview"}` : "";
    if (step.error && step.error !== step.text) parts.push(told("error", "Refused", step.error, asked));
    const view = record.views[step.view];
    if (view) {
      const [x0, y0, x1, y1] = view.region;
      const shown = `${x1 - x0} × ${y1 - y0} source pixels, shown at ${view.shown[0]} × ${view.shown[1]}`;
      parts.push(el("p", { class: "fine" }, `${asked}: ${shown}.${step.note ? ` ${step.note}` : ""}`));
      if (record.altered) parts.push(el("p", { class: "fine odd" }, `Not what the model saw: in this run crops were ${record.altered}.`));
    } else if (step.kind === "zoom" && !step.error) {
      parts.push(el("p", { class: "fine" }, `Asked for ${asked}, which was not carried out.`));
    }
    return parts;
  }

  function told(kind, title, text, code) {
    return el("div", { class: `told ${kind}` }, el("b", {}, title), text, code ? el("code", {}, code) : null);
  }

  function foot(record, card) {
    const at = Number(card.dataset.index) + 1;
    const link = el("a", { href: hash({ ...filters, at: String(at) }), title: "Link to this one", onclick: () => choose(card) }, `#${at}`);
    const stop = el("span", { class: record.stop === "answered" ? "" : "odd" }, STOPS[record.stop] || record.stop);
    const [tokensIn, tokensOut] = record.tokens;
    const facts = [
      record.id, record.category, record.file, record.policy, plural(record.zooms, "zoom"),
      tokensIn === null ? "" : `${plural(tokensIn, "token")} in`,
      tokensOut === null ? "" : `${plural(tokensOut, "token")} out`,
      record.seconds === null ? "" : `${number(record.seconds)} s`,
    ];
    return el("div", { class: "record" }, link, stop, facts.filter(Boolean).map((fact) => el("span", {}, fact)));
  }

  // --- filters; the address holds them, so that a view can be linked

  const empty = { verdict: "", stop: "", category: "", zooms: "", policy: "", q: "" };
  let filters = { ...empty };

  // The words of a turn that its card shows at once; searching the numbers of every box would find too much.
  function readable(turn) {
    const told = turn.steps.flatMap((step) => [step.text, step.error, step.note]);
    const broken = turn.steps.some((step) => step.kind === "malformed");
    return [broken ? turn.text : turn.thought, ...told].filter(Boolean).join("\n");
  }

  function searchable(record) {
    record.words ??= [
      record.id, record.file, record.question, record.category, record.policy, record.error,
      ...record.choices.map(([, text]) => text), ...record.truth.map(([text]) => text), record.answer?.[0], ...record.turns.map(readable),
    ].join("\n").toLowerCase();
    return record.words;
  }

  function passes(record, skip) {
    for (const [name, value] of Object.entries(VALUE)) {
      if (name !== skip && filters[name] && value(record) !== filters[name]) return false;
    }
    return filters.q.toLowerCase().split(/\s+/).every((word) => !word || searchable(record).includes(word));
  }

  function hash(state) {
    const kept = Object.entries(state).filter(([, value]) => value);
    return `#${new URLSearchParams(kept)}`;
  }

  function readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const name of Object.keys(empty)) filters[name] = given.get(name) || "";
    return Number(given.get("at")) || 0;
  }

  function writeHash(at) {
    history.replaceState(null, "", hash(at ? { ...filters, at: String(at) } : filters) );
  }

  function tally(name, value) {
    const counts = new Map();
    for (const record of records) if (passes(record, name)) counts.set(value(record), (counts.get(value(record)) || 0) + 1);
    return counts;
  }

  function drawVerdicts() {
    const counts = tally("verdict", verdictOf);
    const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
    document.getElementById("verdicts").replaceChildren(...VERDICTS.map(([value, words]) =>
      el("button", { type: "button", "aria-pressed": String(filters.verdict === value), onclick: () => set("verdict", value) },
        words, el("b", {}, number(value ? counts.get(value) || 0 : all)))));
  }

  const FACETS = [
    ["stop", "Stop reason", (value) => STOPS[value] || value],
    ["category", "Category", (value) => value || "(none)"],
    ["zooms", "Zooms", (value) => plural(Number(value), "zoom")],
    ["policy", "Policy", (value) => value || "(unnamed)"],
  ];

  function drawFacets() {
    const facets = [];
    for (const [name, any, words] of FACETS) {
      const values = [...new Set(records.map(VALUE[name]))].filter((value) => value !== "");
      values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
      if (values.length < 2 && !filters[name]) continue;
      if (filters[name] && !values.includes(filters[name])) values.push(filters[name]);
      const counts = tally(name, VALUE[name]);
      const options = values.map((value) => el("option", { value }, `${words(value)} (${number(counts.get(value) || 0)})`));
      const select = el("select", { "aria-label": any, "data-name": name, class: filters[name] ? "set" : "", onchange: (event) => set(name, event.target.value) }, el("option", { value: "" }, any), options);
      select.value = filters[name];
      facets.push(select);
    }
    const focused = document.activeElement && document.activeElement.dataset.name;
    const place = document.getElementById("facets");
    place.replaceChildren(...facets);
    if (focused) place.querySelector(`[data-name=${focused}]`)?.focus();
  }

  function drawFigures(shown) {
    const mean = (values) => {
      const known = values.filter((value) => value !== null);
      return known.length ? number(known.reduce((sum, value) => sum + value, 0) / known.length) : null;
    };
    const scored = shown.filter((record) => record.right !== null);
    const right = scored.filter((record) => record.right).length;
    const figures = [
      ["right of " + number(scored.length), scored.length ? `${((100 * right) / scored.length).toFixed(1)} %` : null],
      ["mean zooms", mean(shown.map((record) => record.zooms))],
      ["mean tokens in", mean(shown.map((record) => record.tokens[0]))],
      ["mean tokens out", mean(shown.map((record) => record.tokens[1]))],
      ["mean seconds", mean(shown.map((record) => record.seconds))],
    ];
    document.getElementById("figures").replaceChildren(...figures.filter(([, value]) => value !== null)
      .map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  const cards = records.map((_, index) => el("article", { class: "card", "data-index": index, tabindex: "-1" }));
  const nothing = el("p", { class: "notice", hidden: "" }, "Nothing matches these filters.");

  function apply() {
    const shown = [];
    records.forEach((record, index) => {
      const visible = passes(record);
      cards[index].hidden = !visible;
      if (visible) shown.push(record);
    });
    nothing.hidden = shown.length > 0;
    const rest = data.total > records.length ? ` (the first of ${number(data.total)})` : "";
    document.getElementById("count").textContent = `${number(shown.length)} of ${number(records.length)}${rest}`;
    document.getElementById("clear").hidden = Object.values(filters).every((value) => !value);
    const words = document.getElementById("words");
    if (words.value !== filters.q) words.value = filters.q;
    drawVerdicts();
    drawFacets();
    drawFigures(shown);
  }

  function set(name, value) {
    filters[name] = value;
    writeHash();
    choose(null);
    apply();
    if (main.getBoundingClientRect().top < 0) main.scrollIntoView();
  }

  // --- cards in sight, and the keyboard

  // Far from the screen a card is an empty space of its last height, so that a thousand of them weigh nothing.
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting, boundingClientRect } of entries) {
      if (target.hidden) continue;
      const built = target.classList.contains("built");
      if (isIntersecting && !built) build(target);
      else if (!isIntersecting && built && !target.contains(document.activeElement)) {
        target.style.minHeight = `${boundingClientRect.height}px`;
        target.replaceChildren();
        target.classList.remove("built");
      }
    }
  }, { rootMargin: "1200px 0px" });

  let current = null;
  function choose(card) {
    current?.classList.remove("current");
    current = card;
    current?.classList.add("current");
  }

  function goTo(card) {
    if (!card || card.hidden) return;
    if (!card.classList.contains("built")) build(card);
    choose(card);
    card.focus({ preventScroll: true });
    card.scrollIntoView({ block: "start" });
    writeHash(Number(card.dataset.index) + 1);
  }

  function step(by) {
    const visible = cards.filter((card) => !card.hidden);
    if (!visible.length) return;
    let at = visible.indexOf(current);
    if (at < 0) {
      const line = document.getElementById("bar").getBoundingClientRect().bottom;
      at = visible.findIndex((card) => card.getBoundingClientRect().bottom > line + 40) - (by > 0 ? 1 : 0);
    }
    goTo(visible[Math.min(visible.length - 1, Math.max(0, at + by))]);
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    const typing = event.target.matches("input, select");
    if (event.key === "Escape") {
      if (typing) event.target.blur();
      filters = { ...empty };
      writeHash();
      apply();
    } else if (typing) {
      return;
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "/") {
      document.getElementById("words").focus();
      event.preventDefault();
    } else if (event.key === "Enter" && current && event.target === current && records[current.dataset.index].views.length) {
      enlarge(records[current.dataset.index], 0);
    }
  });

  let pause = 0;
  document.getElementById("words").addEventListener("input", (event) => {
    clearTimeout(pause);
    pause = setTimeout(() => set("q", event.target.value), 150);
  });
  document.getElementById("bar").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("clear").addEventListener("click", () => {
    filters = { ...empty };
    writeHash();
    apply();
  });
  addEventListener("hashchange", () => {
    const at = readHash();
    apply();
    if (at) goTo(cards[at - 1]);
  });
  addEventListener("beforeprint", () => {
    // Printing thousands would freeze; the filters choose what is printed.
    cards.filter((card) => !card.hidden).slice(0, 100).forEach((card) => card.classList.contains("built") || build(card));
  });

  main.replaceChildren(...cards, nothing);
  if (!records.length) nothing.textContent = "There are no trajectories in this file.";
  const start = readHash();
  apply();
  cards.forEach((card) => watcher.observe(card));
  if (start) goTo(cards[start - 1]);
})();
