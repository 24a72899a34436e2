// What is drawn of a trajectory: question, verdict, the overviews, and what the model wrote and saw turn by turn. Both pages
// draw it with this. `scope` is the element within which a crop lights up its box.

function build(card) {
  card.replaceChildren(el("div", { class: "inside" }, content(items[card.dataset.index], card)));
  card.classList.add("built");
  card.style.minHeight = "";
}

function ask(question, badge) {
  return el("div", { class: "ask" }, el("h2", { class: "question", dir: "auto" }, question || "(no question)"), badge);
}

// A sample that was rejected unseen has no verdict.
function badge(record) {
  const verdict = verdictOf(record);
  return el("div", { class: "badges" },
    record.reason ? el("span", { class: "badge none" }, `Rejected: ${record.reason}`) : null,
    record.reason && !record.turns.length ? null : el("span", { class: `badge ${verdict}` }, VERDICTS.find(([value]) => value === verdict)[1]));
}

// judged: whether the chosen option is marked where it is wrong, not only the right one.
function choices(record, judged = true) {
  if (!record.choices.length) return null;
  const truths = record.truth.map(([, choice]) => choice);
  const chosen = record.answer ? record.answer[1] : null;
  return el("ol", { class: "choices" }, record.choices.map(([letter, text], index) => {
    const kind = truths.includes(index) ? "true" : judged && index === chosen && record.right === false ? "false" : "";
    return el("li", { class: kind, dir: "auto" }, el("b", {}, letter), el("span", {}, text));
  }));
}

// All from the answer down.
const course = (record, scope, withTruth = true) => [outcome(record, withTruth), worth(record), look(record, scope)];

function spelled(record, [text, choice]) {
  return choice === null || !record.choices[choice] ? text : record.choices[choice].join(". ");
}

function truthLine(record) {
  if (!record.truth.length) return null;
  const truth = record.truth.map((one) => spelled(record, one)).join("  or  ");
  return el("div", {}, el("dt", {}, "Truth"), el("dd", { dir: "auto" }, truth));
}

function outcome(record, withTruth) {
  const verdict = record.right === null ? "" : verdictOf(record);
  const answer = record.answer
    ? el("dd", { class: verdict, dir: "auto" }, spelled(record, record.answer))
    : el("dd", { class: "missing" }, "none");
  const list = el("dl", { class: "outcome" }, el("div", {}, el("dt", {}, "Answer"), answer), withTruth ? truthLine(record) : null);
  const said = record.notes.map((note) => el("div", { class: "message malformed" }, el("b", {}, "Image file"), note));
  if (record.warning) said.unshift(el("div", { class: "message malformed unreliable" }, el("b", {}, "Unreliable"), record.warning));
  return [list, ...said];
}

// What training made of the trajectory. A reward that is not scored says so: that is no 0.
function worth(record) {
  const rewards = record.rewards.map(([which, value]) =>
    el("span", { dir: "auto" }, el("i", {}, `${data.rewards[which]} `), value === null ? el("i", { class: "missing" }, "not scored") : number(value)));
  const facts = [
    ["Rewards", rewards.length ? rewards : null],
    ["Advantage", record.advantage === null ? null : signed(record.advantage)],
    ["Step", record.step === null ? null : only("step", String(record.step))],
    ["Group", record.group ? only("group", record.group) : null],
  ].filter(([, value]) => value !== null);
  return facts.length ? el("dl", { class: "worth" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))) : null;
}

// A value that shows only the trajectories that share it.
function only(facet, value) {
  return el("button", { type: "button", class: "only", dir: "auto", title: `Show only this ${facet}`, onclick: () => set(facet, value) }, value);
}

function look(record, scope) {
  const steps = el("ol", { class: "steps" }, record.turns.map((turn) => turnItem(record, turn, scope)));
  if (record.left_out) steps.append(el("li", { class: "turn plain fine" }, `${plural(record.left_out, "more turn")} left out for the size of the page.`));
  if (record.error) {
    const title = record.reason ? ["Rejected: ", only("reason", record.reason)] : "The run failed";
    const sentence = record.reason ? record.error.slice(record.error.indexOf(": ") + 2) : record.error;
    steps.append(el("li", { class: "turn plain" }, message("error", title, sentence)));
  }
  return el("div", { class: "look" }, overview(record), steps);
}

function overview(record) {
  if (!record.views.length) {
    const frame = el("div", { class: "frame" }, el("span", { class: "lost" }, el("span", {}, `${record.file || "The image"} was not shown to the model.`)));
    frame.style.height = "72px";
    return el("figure", { class: "overview" }, frame);
  }
  const wholes = record.views.slice(0, record.overviews).map((view, k) => whole(record, view, k));
  return el("figure", { class: "overview" }, wholes);
}

// One whole image with its caption. Several share the height of the window.
function whole(record, view, k) {
  const [, , width, height] = view.region;
  const several = record.overviews > 1;
  const label = several ? `Enlarge image ${k}` : "Enlarge the image";
  const frame = el("button", { type: "button", class: `frame ${width >= height ? "wide" : ""}`, "aria-label": label, onclick: () => enlarge(record, k) });
  frame.style.width = `min(100%, ${(72 * width) / height / Math.min(record.overviews, 3)}vh)`;
  const [shownWidth, shownHeight] = view.shown;
  const words = `${width.toLocaleString("en")} × ${height.toLocaleString("en")} pixels, shown to the model at ${shownWidth} × ${shownHeight}`;
  const caption = el("figcaption", {}, el("span", {}, several ? `Image ${k}: ${words}` : words));
  if (record.boxes.length && k === 0) caption.append(el("span", {}, el("span", { class: "dash" }), "what the question is about"));
  if (record.address && k === 0) caption.append(el("a", { class: "full", href: record.address, target: "_blank", rel: "noreferrer" }, "Full resolution"));
  return [picture(record, k, frame, true), caption];
}

function turnItem(record, turn, scope) {
  const crops = turn.steps.filter((step) => record.views[step.view]).map((step) => crop(record, step, scope));
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

function crop(record, step, scope) {
  const k = step.view;
  const frame = el("button", {
    type: "button", class: "frame crop", "aria-label": `Enlarge crop ${k}`,
    onclick: () => enlarge(record, k),
    onmouseenter: () => highlight(scope, k), onmouseleave: () => highlight(scope, null),
    onfocus: () => highlight(scope, k), onblur: () => highlight(scope, null),
  });
  frame.style.setProperty("--hue", hue(k));
  const [x0, y0, x1, y1] = record.views[k].region;
  frame.style.width = `min(100%, ${(300 * (x1 - x0)) / (y1 - y0)}px)`;
  picture(record, k, frame, false).append(tag(k, "own"));
  return frame;
}

// The result of one action.
function result(record, step) {
  if (step.kind === "answer") return el("p", { class: "said", dir: "auto" }, el("span", {}, "Answers"), step.text);
  const parts = [];
  if (step.kind === "malformed") parts.push(message("malformed", "Not an action", step.text));
  const asked = step.asked ? `${step.asked} ${step.kind === "use" ? "on" : "of"} ${step.of || record.overviews > 1 ? `image ${step.of}` : "the overview"}` : "";
  if (step.error && step.error !== step.text) parts.push(message("error", "Refused", step.error, asked));
  const view = record.views[step.view];
  if (view) {
    const [x0, y0, x1, y1] = view.region;
    const shown = `${x1 - x0} × ${y1 - y0} source pixels, shown at ${view.shown[0]} × ${view.shown[1]}`;
    parts.push(el("p", { class: "fine" }, `${asked}: ${shown}.${step.note ? ` ${step.note}` : ""}`));
    if (view.tool) parts.push(el("p", { class: "fine odd" }, `This is the region that ${view.tool} was given. The model saw the image that ${view.tool} made of it.`));
    if (record.altered) parts.push(el("p", { class: "fine odd" }, `The model did not see this crop: in this run crops were ${record.altered}.`));
  } else if (step.said) {
    parts.push(message("result", asked, step.said));
  } else if (step.asked && !step.error) {
    parts.push(el("p", { class: "fine" }, `Asked for ${asked}. Nothing was shown for it.`));
  }
  return parts;
}

function message(kind, title, text, code) {
  return el("div", { class: `message ${kind}` }, el("b", {}, title), text, code ? el("code", {}, code) : null);
}

// What is known of a trajectory beside what is shown; of a play without what it has in common with the others of its question.
const facts = (record) => [record.from, record.id, record.category, record.file, ...factsOfPlay(record)];

function factsOfPlay(record) {
  const [tokensIn, tokensOut] = record.tokens;
  return [
    el("span", { class: record.stop === "answered" ? "" : "odd" }, STOPS[record.stop] || record.stop),
    record.policy, record.strategy,
    record.resolution === null ? "" : `resolution ${record.resolution}`,
    record.play === null ? "" : `play ${record.play}`,
    record.shuffle === null ? "" : `options shuffled with seed ${record.shuffle}`,
    plural(record.zooms, "zoom"),
    tokensIn === null ? "" : `${plural(tokensIn, "token")} in`,
    tokensOut === null ? "" : `${plural(tokensOut, "token")} out`,
    record.seconds === null ? "" : `${number(record.seconds)} s`,
  ];
}

// card: the one that the line links to, if it does.
function foot(card, facts) {
  const at = card ? Number(card.dataset.index) + 1 : 0;
  const link = card ? el("a", { href: `#at=${at}`, title: "Link to this one", onclick: (event) => { event.preventDefault(); goTo(card); } }, `#${at}`) : null;
  return el("div", { class: "record" }, link, facts.filter(Boolean).map((fact) => (fact instanceof Node ? fact : el("span", {}, fact))));
}

// The words of a turn that its card shows at once; searching the numbers of every box would find too much.
function readable(turn) {
  const said = turn.steps.flatMap((step) => [step.text, step.said, step.error, step.note]);
  const broken = turn.steps.some((step) => step.kind === "malformed");
  return [broken ? turn.text : turn.thought, ...said].filter(Boolean).join("\n");
}

// What the search looks through.
const wordsOfRecord = (record) => [
  record.from, record.id, record.file, record.question, record.category, record.policy, record.strategy, record.group, record.error,
  ...record.choices.map(([, text]) => text), ...record.truth.map(([text]) => text), record.answer?.[0], ...record.turns.map(readable),
];
