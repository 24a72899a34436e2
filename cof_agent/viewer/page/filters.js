// Which cards are shown and in which order. The address holds it all, so that a view can be linked.
// What a card is of, its verdict, facets and measures are the page's own: see trajectories.js and comparison.js.

// A facet is a property with few values. An empty value is none to choose. quiet: it is only offered once it is set. chips: its
// values stand side by side, with their counts. last: the value that stands behind the others.
const FACETS = FACETS_OF_PAGE.map(([name, heading, value, words, how]) => ({ name, heading, value, words: words || ((one) => one), ...how }));

// A measure is a number that is filtered by its range and sorted by; null where it is unknown.
const MEASURES = MEASURES_OF_PAGE.map(([name, heading, value]) => {
  const known = items.map(value).filter((one) => one !== null);
  const [least, most] = known.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [Infinity, -Infinity]);
  return { name, heading, value, least, most, unscored: items.filter((item) => isUnscored(item, name, value)).length };
}).filter(({ least, most, unscored }) => least < most || unscored);

const ORDERS = [
  ...MEASURES.filter(({ least, most }) => least < most),
  ...FACETS.filter(({ name, value }) => name === "group" && new Set(items.map(value)).size > 1),
];

const RANGE_PARTS = ["least", "most", "unscored"];
const rangeNames = ({ name }) => RANGE_PARTS.map((part) => `${part}:${name}`);
const NAMES = ["verdict", ...FACETS.map(({ name }) => name), "q", ...MEASURES.flatMap(rangeNames)];

// Every value is a text; an empty one does not filter. A reward may have any name, hence no prototype.
const filters = Object.create(null);
for (const name of [...NAMES, ...KEPT, "sort", "down"]) filters[name] = "";

const isFiltered = () => NAMES.some((name) => filters[name]);

function clearFilters() {
  for (const name of NAMES) filters[name] = "";
}

function searchable(item) {
  item.words ??= wordsOf(item).join("\n").toLowerCase();
  return item.words;
}

function inRange(item, { name, value }) {
  const [least, most, unscored] = rangeNames({ name }).map((part) => filters[part]);
  if (!least && !most && !unscored) return true;
  const found = value(item);
  if (found === null) return Boolean(unscored) && isUnscored(item, name, value);
  if (unscored && !least && !most) return false;
  return (!least || found >= Number(least)) && (!most || found <= Number(most));
}

// Whether an item is shown; the facet called `skip` is left out of account.
function passes(item, skip) {
  if (skip !== "verdict" && filters.verdict && verdictOfItem(item) !== filters.verdict) return false;
  for (const { name, value } of FACETS) {
    if (name !== skip && filters[name] && value(item) !== filters[name]) return false;
  }
  if (!MEASURES.every((measure) => inRange(item, measure))) return false;
  return filters.q.toLowerCase().split(/\s+/).every((word) => !word || searchable(item).includes(word));
}

function tally(name, value) {
  const counts = new Map();
  for (const item of items) if (passes(item, name)) counts.set(value(item), (counts.get(value(item)) || 0) + 1);
  return counts;
}

// Numbers of items in the order in which they are shown. An item without the value comes last in either direction.
function ordered() {
  const indices = items.map((_, index) => index);
  const order = ORDERS.find(({ name }) => name === filters.sort);
  if (!order) return filters.down ? indices.reverse() : indices;
  const values = items.map(order.value);
  const missing = (value) => value === null || value === "";
  return indices.sort((a, b) => {
    const [first, second] = [values[a], values[b]];
    if (missing(first) || missing(second)) return missing(first) - missing(second);
    const rising = typeof first === "number" ? first - second : first.localeCompare(second, "en", { numeric: true });
    return filters.down ? -rising : rising;
  });
}

function hash(at) {
  const kept = Object.entries(filters).filter(([, value]) => value);
  return `#${new URLSearchParams(at ? [...kept, ["at", at]] : kept)}`;
}

// Takes the filters from the address; returns the number of the card that it names, or 0.
function readHash() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(filters)) filters[name] = given.get(name) || "";
  for (const name of MEASURES.flatMap(rangeNames)) if (!Number.isFinite(Number(filters[name]))) filters[name] = "";
  return Number(given.get("at")) || 0;
}

function writeHash(at) {
  history.replaceState(null, "", hash(at));
}
