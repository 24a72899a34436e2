// The page's data, the words for its values, and how elements and numbers are made. All text goes in as text nodes.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const data = read("data");
const records = read("records");
const problems = new Map(data.problems.flatMap(([text, images]) => images.map((number) => [number, text])));
const STOPS = {
  answered: "Answered", max_zooms: "Out of zooms", truncated: "Cut off", malformed: "Malformed", error: "Error",
};
const VERDICTS = [["", "All"], ["right", "Right"], ["wrong", "Wrong"], ["none", "Not scored"]];
const verdictOf = (record) => (record.right === true ? "right" : record.right === false ? "wrong" : "none");

// The value of a reward by its number; null where it is not scored, or not given.
const rewardOf = (record, number) => record.rewards.find(([other]) => other === number)?.[1] ?? null;

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

// Counts in full, other numbers to three digits.
const number = (value) =>
  value.toLocaleString("en", Number.isInteger(value) || Math.abs(value) >= 100 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 3 });
const signed = (value) => (value > 0 ? "+" : value < 0 ? "\u2212" : "") + number(Math.abs(value));
const mean = (values) => {
  const known = values.filter((value) => value !== null);
  return known.length ? number(known.reduce((sum, value) => sum + value, 0) / known.length) : null;
};
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
const colours = (k) => data.palette[(k - 1) % data.palette.length]; // of a number's ground, and of its ink
const hue = (k) => colours(k)[0];
