// Cards are built when they come near the screen; the keyboard walks over them. This file starts the page.

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

const inOrder = () => [...main.children].filter((card) => card !== nothing && !card.hidden);

function goTo(card) {
  if (!card || card.hidden) return;
  if (!card.classList.contains("built")) build(card);
  choose(card);
  card.focus({ preventScroll: true });
  card.scrollIntoView({ block: "start" });
  writeHash(Number(card.dataset.index) + 1);
}

function step(by) {
  const visible = inOrder();
  if (!visible.length) return;
  let at = visible.indexOf(current);
  if (at < 0) {
    const line = place("bar").getBoundingClientRect().bottom;
    at = visible.findIndex((card) => card.getBoundingClientRect().bottom > line + 40) - (by > 0 ? 1 : 0);
  }
  goTo(visible[Math.min(visible.length - 1, Math.max(0, at + by))]);
}

function escape(event) {
  if (place("ranges").open) {
    place("ranges").open = false;
    place("ranges").querySelector("summary").focus();
    return;
  }
  if (event.target.matches("input, select")) event.target.blur();
  clear();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
  if (event.key === "Escape") escape(event);
  else if (event.target.matches("input, select")) return;
  else if (event.key === "j") step(1);
  else if (event.key === "k") step(-1);
  else if (event.key === "/") {
    place("words").focus();
    event.preventDefault();
  } else if (event.key === "Enter" && current && event.target === current) {
    const record = enlarges(items[current.dataset.index]);
    if (record?.views.length) enlarge(record, 0);
  }
});

// Shows what the address says: a card, or what its filters leave.
function follow() {
  const at = readHash();
  cards.filter((card) => card.classList.contains("built")).forEach(build);
  apply();
  if (at) goTo(cards[at - 1]);
  else if (location.hash.length > 1) place("browse").scrollIntoView();
}

// A place on the page is no filter.
addEventListener("hashchange", () => place(location.hash.slice(1)) || follow());
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.rows");
  if (link && link.hash === location.hash) follow(); // which changes no address
});
addEventListener("beforeprint", () => {
  // Printing thousands would freeze; the filters choose what is printed.
  inOrder().slice(0, 100).forEach((card) => card.classList.contains("built") || build(card));
});

if (!items.length) nothing.textContent = EMPTY;
const start = place(location.hash.slice(1)) ? 0 : readHash();
drawOrder();
apply();
cards.forEach((card) => watcher.observe(card));
if (start) goTo(cards[start - 1]);
else if (isFiltered()) place("browse").scrollIntoView();
