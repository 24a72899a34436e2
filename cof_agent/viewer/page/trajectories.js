// The page of trajectories: each card is one of them.

const items = records;
const KINDS = VERDICTS;
const verdictOfItem = verdictOf;
const KEPT = []; // filters of the page's own, which "Clear" leaves as they are
const EMPTY = "There are no trajectories in this file.";

const asText = (value) => (value === null ? "" : String(value));
const KEPT_ONES = "not rejected";
const someRejected = records.some((record) => record.reason);

// [name, heading, value, words for a value, how it is offered]
const FACETS_OF_PAGE = [
  ["from", "File", (record) => record.from],
  ["stop", "Stop reason", (record) => record.stop, (value) => STOPS[value] || value],
  ["reason", "Rejected for", (record) => record.reason || (someRejected ? KEPT_ONES : ""), null, { chips: true, last: KEPT_ONES }],
  ["unreliable", "Reliability", (record) => (record.warning ? "unreliable" : "no warning")],
  ["category", "Category", (record) => record.category],
  ["zooms", "Zooms", (record) => asText(record.zooms), (value) => plural(Number(value), "zoom")],
  ["policy", "Policy", (record) => record.policy],
  ["strategy", "Strategy", (record) => record.strategy],
  ["resolution", "Resolution", (record) => asText(record.resolution), (value) => `resolution ${value}`],
  ["play", "Play", (record) => asText(record.play), (value) => `play ${value}`],
  ["step", "Step", (record) => asText(record.step), (value) => `step ${value}`],
  ["group", "Group", (record) => record.group],
];

// [name, heading, value]
const MEASURES_OF_PAGE = [
  ["step", "Step", (record) => record.step],
  ...data.rewards.map((name, which) => [`reward:${name}`, `Reward: ${name}`, (record) => rewardOf(record, which)]),
  ["advantage", "Advantage", (record) => record.advantage],
  ["zooms", "Zooms", (record) => record.zooms],
  ["in", "Tokens in", (record) => record.tokens[0]],
  ["out", "Tokens out", (record) => record.tokens[1]],
  ["seconds", "Seconds", (record) => record.seconds],
];

// Whether a record has rewards, but this one was not scored.
const isUnscored = (record, name, value) => name.startsWith("reward:") && record.rewards.length > 0 && value(record) === null;

const wordsOf = wordsOfRecord;
const enlarges = (record) => record; // what Enter shows of a card

function content(record, card) {
  return [ask(record.question, badge(record)), choices(record), course(record, card), foot(card, facts(record))];
}

// The mean of each reward over those that are scored.
function rewardFigures(shown) {
  return data.rewards.map((name, which) => {
    const given = shown.filter((record) => record.rewards.some(([other]) => other === which));
    const values = given.map((record) => rewardOf(record, which));
    const missing = values.filter((value) => value === null).length;
    return [`mean reward ${name}${missing && missing < values.length ? `, ${number(missing)} not scored` : ""}`, values.length ? mean(values) ?? "not scored" : null];
  });
}

function figuresOf(shown) {
  return [
    shareRight(shown, "right of"),
    ...rewardFigures(shown),
    ["mean zooms", mean(shown.map((record) => record.zooms))],
    ["mean tokens in", mean(shown.map((record) => record.tokens[0]))],
    ["mean tokens out", mean(shown.map((record) => record.tokens[1]))],
    ["mean seconds", mean(shown.map((record) => record.seconds))],
  ];
}
