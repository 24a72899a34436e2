// The bar with its filters and the order, and the figures of what is shown.

const place = (id) => document.getElementById(id);
const main = place("cards");
const cards = records.map((_, index) => el("article", { class: "card", "data-index": index, tabindex: "-1" }));
const nothing = el("p", { class: "notice", hidden: "" }, "Nothing matches these filters.");
const MOST_OPTIONS = 500; // of a facet with more, a card's own button still filters

function drawVerdicts() {
  const counts = tally("verdict", verdictOf);
  const all = [...counts.values()].reduce((sum, count) => sum + count, 0);
  place("verdicts").replaceChildren(...VERDICTS.map(([value, words]) =>
    el("button", { type: "button", "aria-pressed": String(filters.verdict === value), onclick: () => set("verdict", value) },
      words, el("b", {}, number(value ? counts.get(value) || 0 : all)))));
}

function facetValues({ name, value }) {
  const values = [...new Set(records.map(value))].filter((one) => one !== "");
  values.sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  if (filters[name] && (!values.includes(filters[name]) || values.length > MOST_OPTIONS)) return [filters[name]];
  const tells = values.length > 1 || (values.length && records.some((record) => value(record) === ""));
  return tells && values.length <= MOST_OPTIONS ? values : [];
}

function drawFacets() {
  const selects = FACETS.map((facet) => [facet, facetValues(facet)]).filter(([, values]) => values.length).map(([facet, values]) => {
    const { name, heading } = facet;
    const counts = tally(name, facet.value);
    const options = values.map((value) => el("option", { value }, `${facet.words(value)} (${number(counts.get(value) || 0)})`));
    const select = el("select", {
      "aria-label": heading, "data-name": name, class: filters[name] ? "set" : "", onchange: (event) => set(name, event.target.value),
    }, el("option", { value: "" }, heading), options);
    select.value = filters[name];
    return select;
  });
  const focused = document.activeElement?.dataset.name;
  place("facets").replaceChildren(...selects);
  if (focused) place("facets").querySelector(`[data-name=${focused}]`)?.focus();
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

const mean = (values) => {
  const known = values.filter((value) => value !== null);
  return known.length ? number(known.reduce((sum, value) => sum + value, 0) / known.length) : null;
};

// The mean of each reward over those that are scored.
function rewardFigures(shown) {
  return data.rewards.map((name, which) => {
    const given = shown.filter((record) => record.rewards.some(([other]) => other === which));
    const values = given.map((record) => rewardOf(record, which));
    const missing = values.filter((value) => value === null).length;
    return [`mean reward ${name}${missing && missing < values.length ? `, ${number(missing)} not scored` : ""}`, values.length ? mean(values) ?? "not scored" : null];
  });
}

function drawFigures(shown) {
  const scored = shown.filter((record) => record.right !== null);
  const right = scored.filter((record) => record.right).length;
  const figures = [
    ["right of " + number(scored.length), scored.length ? `${((100 * right) / scored.length).toFixed(1)} %` : null],
    ...rewardFigures(shown),
    ["mean zooms", mean(shown.map((record) => record.zooms))],
    ["mean tokens in", mean(shown.map((record) => record.tokens[0]))],
    ["mean tokens out", mean(shown.map((record) => record.tokens[1]))],
    ["mean seconds", mean(shown.map((record) => record.seconds))],
  ];
  place("figures").replaceChildren(...figures.filter(([, value]) => value !== null)
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
  records.forEach((record, index) => {
    const visible = passes(record);
    cards[index].hidden = !visible;
    if (visible) shown.push(record);
  });
  nothing.hidden = shown.length > 0;
  const rest = data.total > records.length ? ` (the first of ${number(data.total)})` : "";
  place("count").textContent = `${number(shown.length)} of ${number(records.length)}${rest}`;
  place("clear").hidden = !isFiltered();
  if (place("words").value !== filters.q) place("words").value = filters.q;
  sortCards();
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
place("order").hidden = records.length < 2;
document.addEventListener("click", (event) => {
  if (!place("ranges").contains(event.target)) place("ranges").open = false;
});
