// Which trajectories are shown and in which order. The address holds it all, so that a view can be linked.

// A facet is a property with few values: [name, heading, value, words]. An empty value is none to choose.
const asText = (value) => (value === null ? "" : String(value));
const someRejected = records.some((record) => record.reason);
const FACETS = [
  ["from", "File", (record) => record.from],
  ["stop", "Stop reason", (record) => record.stop, (value) => STOPS[value] || value],
  ["reason", "Rejected for", (record) => record.reason || (someRejected ? "not rejected" : "")],
  ["unreliable", "Reliability", (record) => (record.warning ? "unreliable" : "no warning")],
  ["category", "Category", (record) => record.category],
  ["zooms", "Zooms", (record) => asText(record.zooms), (value) => plural(Number(value), "zoom")],
  ["policy", "Policy", (record) => record.policy],
  ["strategy", "Strategy", (record) => record.strategy],
  ["resolution", "Resolution", (record) => asText(record.resolution), (value) => `resolution ${value}`],
  ["play", "Play", (record) => asText(record.play), (value) => `play ${value}`],
  ["step", "Step", (record) => asText(record.step), (value) => `step ${value}`],
  ["group", "Group", (record) => record.group],
].map(([name, heading, value, words]) => ({ name, heading, value, words: words || ((one) => one) }));

// A measure is a number that is filtered by its range and sorted by; null where it is unknown.
const MEASURES = [
  ["step", "Step", (record) => record.step],
  ...data.rewards.map((name, which) => [`reward:${name}`, `Reward: ${name}`, (record) => rewardOf(record, which)]),
  ["advantage", "Advantage", (record) => record.advantage],
  ["zooms", "Zooms", (record) => record.zooms],
  ["in", "Tokens in", (record) => record.tokens[0]],
  ["out", "Tokens out", (record) => record.tokens[1]],
  ["seconds", "Seconds", (record) => record.seconds],
].map(([name, heading, value]) => {
  const known = records.map(value).filter((one) => one !== null);
  const [least, most] = known.reduce(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [Infinity, -Infinity]);
  const reward = name.startsWith("reward:");
  return { name, heading, value, least, most, unscored: reward ? records.filter((one) => one.rewards.length && value(one) === null).length : 0 };
}).filter(({ least, most, unscored }) => least < most || unscored);

const ORDERS = [
  ...MEASURES.filter(({ least, most }) => least < most),
  ...FACETS.filter(({ name, value }) => name === "group" && new Set(records.map(value)).size > 1),
];

const RANGE_PARTS = ["least", "most", "unscored"];
const rangeNames = ({ name }) => RANGE_PARTS.map((part) => `${part}:${name}`);
const ORDER_NAMES = ["sort", "down"];
const NAMES = ["verdict", ...FACETS.map(({ name }) => name), "q", ...MEASURES.flatMap(rangeNames)];

// Every value is a text; an empty one does not filter. A reward may have any name, hence no prototype.
const filters = Object.create(null);
for (const name of [...NAMES, ...ORDER_NAMES]) filters[name] = "";

const isFiltered = () => NAMES.some((name) => filters[name]);

function clearFilters() {
  for (const name of NAMES) filters[name] = "";
}

// The words of a turn that its card shows at once; searching the numbers of every box would find too much.
function readable(turn) {
  const said = turn.steps.flatMap((step) => [step.text, step.said, step.error, step.note]);
  const broken = turn.steps.some((step) => step.kind === "malformed");
  return [broken ? turn.text : turn.thought, ...said].filter(Boolean).join("\n");
}

function searchable(record) {
  record.words ??= [
    record.id, record.file, record.question, record.category, record.policy, record.strategy, record.group, record.error,
    ...record.choices.map(([, text]) => text), ...record.truth.map(([text]) => text), record.answer?.[0], ...record.turns.map(readable),
  ].join("\n").toLowerCase();
  return record.words;
}

function inRange(record, { name, value }) {
  const [least, most, unscored] = rangeNames({ name }).map((part) => filters[part]);
  if (!least && !most && !unscored) return true;
  const found = value(record);
  if (found === null) return Boolean(unscored) && record.rewards.length > 0;
  if (unscored && !least && !most) return false;
  return (!least || found >= Number(least)) && (!most || found <= Number(most));
}

// Whether a record is shown; the facet called `skip` is left out of account.
function passes(record, skip) {
  if (skip !== "verdict" && filters.verdict && verdictOf(record) !== filters.verdict) return false;
  for (const { name, value } of FACETS) {
    if (name !== skip && filters[name] && value(record) !== filters[name]) return false;
  }
  if (!MEASURES.every((measure) => inRange(record, measure))) return false;
  return filters.q.toLowerCase().split(/\s+/).every((word) => !word || searchable(record).includes(word));
}

function tally(name, value) {
  const counts = new Map();
  for (const record of records) if (passes(record, name)) counts.set(value(record), (counts.get(value(record)) || 0) + 1);
  return counts;
}

// Numbers of records in the order in which they are shown. A record without the value comes last in either direction.
function ordered() {
  const indices = records.map((_, index) => index);
  const order = ORDERS.find(({ name }) => name === filters.sort);
  if (!order) return filters.down ? indices.reverse() : indices;
  const values = records.map(order.value);
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
