// Pictures with numbered boxes: on a card, and enlarged in the dialog.

function tag(k, extra = "") {
  const node = el("span", { class: `tag ${extra}`, "data-k": k }, String(k));
  [node.style.background, node.style.color] = colours(k);
  return node;
}

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
    const whole = record.overviews === 1 ? "The whole image" : `The whole of image ${k}`;
    const alt = k < record.overviews ? whole : `Crop ${k}`;
    frame.append(el("img", { alt, src: `data:image/webp;base64,${block.textContent}` }));
  } else {
    frame.append(el("span", { class: "lost" }, el("span", {}, problems.get(view.image) || "This image is not on the page.")));
  }
  const drawing = svg("svg", { viewBox: `${x0} ${y0} ${x1 - x0} ${y1 - y0}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  // What the question needs lies in the first image.
  for (const box of record.boxes.filter((box) => view.source === 0 && meet(box, view.region))) {
    drawing.append(rect("truth-under", box), rect("truth-over", box));
  }
  const zones = record.views
    .map((other, index) => [index, other.region, other.source])
    .filter(([index, region, source]) => index >= record.overviews && index > k && source === view.source
      && within(region, view.region) && (k < record.overviews || area(region) < 0.8 * area(view.region)));
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
  for (const frame of card.querySelectorAll(".overview .frame")) {
    frame.classList.toggle("active", k !== null);
    for (const node of frame.querySelectorAll("[data-k]")) node.classList.toggle("on", node.dataset.k === String(k));
  }
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
