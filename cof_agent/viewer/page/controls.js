// The bar with its filters and the order, and the figures of what is shown.

const place = (id) => document.getElementById(id);
const main = place("cards");
const cards = items.map((_, index) => el("article", { class: "card", "data-index": index, tabindex: "-1" }));
const nothing = el("p", { class: "notice", hidden: "" }, "Nothing matches these filters.");
const MOST_OPTIONS = 500; // of a facet with more, a card's own button still filters

// Buttons of which one is pressed: [value, words, count]; an empty value is for all.
function chips(name, values) {
  return values.map(([value, words, count]) =>
    el("button", { type: "button", "data-chip": `${name} ${value}`, "aria-pressed": String(filters[name] === value), onclick: () => set(name, value) },
      words, el("b", {}, number(count))));
}

const sum = (counts) => [...counts.values()].reduce((all, count) => all + count, 0);

// Puts in what was drawn anew; the button that had the focus keeps it.
function replace(id, nodes) {
  const { name, chip } = document.activeElement?.dataset ?? {};
  place(id).replaceChildren(...nodes);
  if (name || chip) [...place(id).querySelectorAll("[data-name], [data-chip]")].find((node) => node.dataset.name === name && node.dataset.chip === chip)?.focus();
}

function drawVerdicts() {
  const counts = tally("verdict", verdictOfItem);
  const kinds = KINDS.filter(([value]) => value !== "none" || filters.verdict === value || items.some((item) => verdictOfItem(item) === value));
  replace("verdicts", chips("verdict", kinds.map(([value, words]) => [value, words, value ? counts.get(value) || 0 : sum(counts)])));
}

function facetValues({ name, value, quiet, last }) {
  if (quiet && !filters[name]) return [];
  const values = [...new Set(items.map(value))].filter((one) => one !== "");
  values.sort((a, b) => (a === last) - (b === last) || a.localeCompare(b, "en", { numeric: true }));
  if (filters[name] && (quiet || !values.includes(filters[name]) || values.length > MOST_OPTIONS)) return [filters[name]];
  const tells = values.length > 1 || (values.length && items.some((item) => value(item) === ""));
  return tells && values.length <= MOST_OPTIONS ? values : [];
}

function drawFacets() {
  const offered = FACETS.map((facet) => [facet, facetValues(facet)]).filter(([, values]) => values.length);
  replace("facets", offered.map(([facet, values]) => {
    const counts = tally(facet.name, facet.value);
    return facet.chips ? facetChips(facet, values, counts) : facetSelect(facet, values, counts);
  }));
}

function facetChips({ name, heading, words }, values, counts) {
  const all = [["", "All", sum(counts)], ...values.map((value) => [value, words(value), counts.get(value) || 0])];
  return el("div", { class: "named" }, el("span", {}, heading), el("div", { class: "verdicts", role: "group", "aria-label": heading }, chips(name, all)));
}

function facetSelect({ name, heading, words }, values, counts) {
  const options = values.map((value) => el("option", { value }, `${words(value)} (${number(counts.get(value) || 0)})`));
  const select = el("select", {
    "aria-label": heading, "data-name": name, class: filters[name] ? "set" : "", onchange: (event) => set(name, event.target.value),
  }, el("option", { value: "" }, heading), options);
  select.value = filters[name];
  return select;
}

// The rows of the ranges are made once, so that a number can be typed while the page follows.
const ranges = MEASURES.map(({ name, heading, least, most, unscored }) => {
  const input = (part, words, bound) => el("input", {
    type: "number", step: "any", "data-part": part, "aria-label": `${heading}, ${words}`, placeholder: number(bound),
    oninput: (event) => soon(`${part}:${name}`, event.target),
  });
  const bounds = least < most ? [input("least", "at least", least), el("span", {}, "to"), input("most", "at most", most)] : [];
  const box = el("input", { type: "checkbox", "data-part": "unscored", onchange: (event) => set(`unscored:${name}`, event.target.checked ? "1" : "") });
  return el("div", { class: "range", role: "group", "aria-label": heading },
    el("span", { dir: "auto" }, heading), el("div", {}, bounds), unscored ? el("label", {}, box, `not scored (${number(unscored)})`) : null);
});

function drawRanges() {
  MEASURES.forEach(({ name }, index) => {
    for (const input of ranges[index].querySelectorAll("[data-part]")) {
      const value = filters[`${input.dataset.part}:${name}`];
      if (input.type === "checkbox") input.checked = Boolean(value);
      else if (input !== document.activeElement) input.value = value;
    }
  });
  const count = MEASURES.filter((measure) => rangeNames(measure).some((name) => filters[name])).length;
  const summary = place("ranges").querySelector("summary");
  summary.textContent = count ? `Ranges (${count})` : "Ranges";
  summary.classList.toggle("set", count > 0);
}

function drawOrder() {
  const options = ORDERS.map(({ name, heading }) => el("option", { value: name }, `Sort: ${heading}`));
  const select = el("select", { "aria-label": "Sort by", onchange: (event) => set("sort", event.target.value) }, el("option", { value: "" }, "Sort: as in the file"), options);
  const turn = el("button", { type: "button", id: "down", onclick: () => set("down", filters.down ? "" : "1") });
  place("order").replaceChildren(select, turn);
}

function drawDirection() {
  place("order").querySelector("select").value = filters.sort;
  const words = filters.sort ? ["Lowest first", "Highest first"] : ["First to last", "Last to first"];
  place("down").textContent = words[filters.down ? 1 : 0];
}

// [words, percentage] of those that are scored.
function shareRight(some, words) {
  const scored = some.filter((record) => record.right !== null);
  const right = scored.filter((record) => record.right).length;
  return [`${words} ${number(scored.length)}`, scored.length ? `${((100 * right) / scored.length).toFixed(1)} %` : null];
}

function drawFigures(shown) {
  place("figures").replaceChildren(...figuresOf(shown).filter(([, value]) => value !== null)
    .map(([name, value]) => el("div", {}, el("dt", { dir: "auto" }, name), el("dd", {}, value))));
}

let sorted = "";
function sortCards() {
  const order = `${filters.sort} ${filters.down}`;
  if (order === sorted) return;
  sorted = order;
  main.replaceChildren(...ordered().map((index) => cards[index]), nothing);
}

function apply() {
  const shown = [];
  items.forEach((item, index) => {
    const visible = passes(item);
    cards[index].hidden = !visible;
    if (visible) shown.push(item);
  });
  nothing.hidden = shown.length > 0;
  const rest = data.total > items.length ? ` (${data.chosen} of ${number(data.total)})` : "";
  place("count").textContent = `${number(shown.length)} of ${number(items.length)}${rest}`;
  place("clear").hidden = !isFiltered();
  if (place("words").value !== filters.q) place("words").value = filters.q;
  sortCards();
  if (KEPT.length) drawPair();
  drawVerdicts();
  drawFacets();
  drawRanges();
  drawDirection();
  drawFigures(shown);
}

function set(name, value) {
  filters[name] = value;
  writeHash();
  choose(null);
  if (KEPT.includes(name)) cards.filter((card) => card.classList.contains("built")).forEach(build); // another badge
  apply();
  if (main.getBoundingClientRect().top < 0) main.scrollIntoView();
}

const waiting = new Map();
function soon(name, input) {
  clearTimeout(waiting.get(name));
  waiting.set(name, setTimeout(() => set(name, input.value), 150));
}

function clear() {
  for (const timer of waiting.values()) clearTimeout(timer);
  clearFilters();
  writeHash();
  apply();
}

place("words").addEventListener("input", (event) => soon("q", event.target));
place("bar").addEventListener("submit", (event) => event.preventDefault());
place("clear").addEventListener("click", clear);
place("panel").replaceChildren(...ranges);
place("ranges").hidden = !ranges.length;
place("order").hidden = items.length < 2;
document.addEventListener("click", (event) => {
  if (!place("ranges").contains(event.target)) place("ranges").open = false;
});
