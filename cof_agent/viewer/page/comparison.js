// The page of a comparison: each card is a question, with the runs side by side.

const runs = data.runs;
const items = data.questions.map((question) => ({ ...question, records: question.records.map((at) => (at === null ? null : records[at])) }));
const many = runs.length > 1;
const KEPT = many ? ["from", "to"] : []; // filters of the page's own, which "Clear" leaves as they are
const EMPTY = "There are no cards on this page.";

const KINDS = many
  ? [["", "All"], ["mended", "Mended"], ["broken", "Broken"], ["wrong", "Both wrong"], ["right", "Both right"], ["none", "Not compared"]]
  : VERDICTS;
const runChosen = (name) => {
  const given = Number(filters[name] || (name === "to" ? 1 : 0));
  return Number.isInteger(given) && given >= 0 && given < runs.length ? given : 0;
};
const verdictIn = (item, run) => (item.records[run] ? verdictOf(item.records[run]) : "none");

// What the second chosen run made of the first one's answer. Without both verdicts there is nothing to compare.
function verdictOfItem(item) {
  if (!many) return verdictIn(item, 0);
  const [before, after] = [verdictIn(item, runChosen("from")), verdictIn(item, runChosen("to"))];
  if (before === "none" || after === "none") return "none";
  return before === after ? before : after === "right" ? "mended" : "broken";
}

function changeOf({ scores }) {
  const [before, after] = [scores[runChosen("from")], scores[runChosen("to")]];
  if (before === null || after === null) return "";
  return after > before ? "better" : after < before ? "worse" : "the same";
}

// The letters of the right option and of the chosen one, where the answer names one.
function letters(item, run) {
  const record = item.records[run];
  const right = record?.truth.find(([, choice]) => choice !== null);
  const chosen = record?.answer?.[1] ?? null;
  return right && chosen !== null ? [right[1], chosen].map((choice) => record.choices[choice]?.[0] ?? "") : ["", ""];
}

const WORDS_OF_RUN = { right: "right", wrong: "wrong", none: "not scored" };
// [name, heading, value, words for a value, how it is offered]. A quiet one is only offered once a link has set it.
const QUIET = { quiet: true };
const FACETS_OF_PAGE = [
  ["category", "Category", (item) => item.category],
  ["resolution", "Resolution", (item) => item.resolution, (value) => `resolution ${value}`],
  ["play", "Play", (item) => item.play, (value) => `play ${value}`],
  ...runs.flatMap((name, run) => [
    [`r${run}`, `${name}: any verdict`, (item) => (item.records[run] ? verdictIn(item, run) : ""), (value) => `${name}: ${WORDS_OF_RUN[value] || value}`, many ? {} : QUIET],
    [`asked${run}`, "Asked", (item) => (item.records[run] ? "asked" : "not asked"), (value) => `${name}: ${value}`, QUIET],
    [`true${run}`, "Right option", (item) => letters(item, run)[0], (value) => `${name}: ${value} is right`, QUIET],
    [`chosen${run}`, "Chosen option", (item) => letters(item, run)[1], (value) => `${name}: chose ${value}`, QUIET],
  ]),
  ["compared", "Compared", (item) => (verdictOfItem(item) === "none" ? "not compared" : "compared"), null, QUIET],
  ["change", "Score", (item) => changeOf(item), (value) => `score: ${value}`, QUIET],
];

// [name, heading, value]
const MEASURES_OF_PAGE = runs.flatMap((name, run) => [
  [`zooms${run}`, `Zooms, ${name}`, (item) => item.records[run]?.zooms ?? null],
  [`out${run}`, `Tokens out, ${name}`, (item) => item.records[run]?.tokens[1] ?? null],
  [`seconds${run}`, `Seconds, ${name}`, (item) => item.records[run]?.seconds ?? null],
]);
const isUnscored = () => false;

const asked = (item) => item.records.filter(Boolean);
const wordsOf = (item) => asked(item).flatMap(wordsOfRecord);
const enlarges = (item) => asked(item).find((record) => record.views.length); // what Enter shows of a card

const sameOptions = (some) => new Set(some.map((record) => JSON.stringify(record.choices))).size < 2;

function content(item, card) {
  const some = asked(item);
  const [first] = some;
  const together = sameOptions(some);
  const kind = verdictOfItem(item);
  const words = KINDS.find(([value]) => value === kind)[1];
  const columns = item.records.map((record, run) => column(record, run, first, together));
  return [
    ask(first.question, el("span", { class: `badge ${kind}` }, words)),
    together ? choices(first, false) : null,
    el("dl", { class: "outcome" }, truthLine(first)),
    el("div", { class: "runs" }, columns),
    foot(card, [first.id, first.category, first.file]),
  ];
}

// One run's way through the question. What all runs share stands above.
function column(record, run, first, together) {
  const title = el("h3", { dir: "auto" }, runs[run]);
  if (!record) return el("section", { class: "run" }, el("div", { class: "ask" }, title), el("p", { class: "fine" }, "This run was not asked."));
  const box = el("section", { class: "run", "aria-label": runs[run] }, el("div", { class: "ask" }, title, badge(record)));
  const other = record.question === first.question ? null : el("p", { class: "question", dir: "auto" }, record.question);
  box.append(...[other, together ? null : choices(record), ...course(record, box, false), foot(null, factsOfPlay(record))].flat().filter(Boolean));
  return box;
}

function figuresOf(shown) {
  return runs.map((name, run) => shareRight(shown.map((item) => item.records[run]).filter(Boolean), `${name}, right of`));
}

function drawPair() {
  const select = (name, label) => {
    const node = el("select", { "aria-label": label, "data-name": name, onchange: (event) => set(name, event.target.value) },
      runs.map((run, number) => el("option", { value: String(number) }, run)));
    node.value = String(runChosen(name));
    return node;
  };
  replace("pair", [select("from", "First run"), el("span", { "aria-hidden": "true" }, "\u2192"), select("to", "Second run")]);
}
