
// The rollouts on the page of an evaluation. dom.js is inserted above.

const data = JSON.parse(byId("data").textContent);
const CHOICES = ["benchmark", "budget", "condition"];
const OUTCOMES = ["wrong", "no_crop", "low_overlap"];
let shown = []; // the rollouts that match the filters
let current = -1; // index of the open one

const outcomeOf = (rollout) =>
  rollout.accuracy === null ? "" : rollout.accuracy >= 0.5 ? "right" : "wrong";
const SYMBOLS = { right: "✓", wrong: "✗", "": "·" };
const number = (value) => (value === null ? null : value.toFixed(2));
const labelled = (name, value) => (value === null ? null : `${name} ${number(value)}`);
const nameOf = (condition) =>
  [...byId("filter-condition").options].find((option) => option.value === condition).textContent;

function passes(rollout) {
  return (
    CHOICES.every((name) => {
      const selected = byId(`filter-${name}`).value;
      return !selected || String(rollout[name]) === selected;
    }) && OUTCOMES.every((name) => !byId(`filter-${name}`).checked || rollout[name])
  );
}

function refilter() {
  shown = data.rollouts.filter(passes);
  byId("count").textContent = `${shown.length} of ${data.rollouts.length}`;
  put(byId("list"), shown.map(row));
  byId("list").scrollTop = 0;
  current = -1;
  if (shown.length) open(0);
  else put(byId("rollout"), el("p", {}, "No rollout matches the filters."));
}

function row(rollout, index) {
  const outcome = outcomeOf(rollout);
  const facts = [
    rollout.benchmark,
    rollout.budget.toLocaleString("en"),
    nameOf(rollout.condition),
    rollout.crops ? labelled("overlap", rollout.overlap) : "no crop",
  ];
  return el(
    "li",
    {},
    el(
      "button",
      { type: "button", onclick: () => open(index) },
      el(
        "span",
        { class: outcome === "right" ? "good" : "bad", "aria-label": outcome || "undecided" },
        SYMBOLS[outcome],
      ),
      el("b", {}, rollout.question),
      el("small", {}, facts.filter(Boolean).join(" · ")),
    ),
  );
}

function open(index, { focus = false } = {}) {
  if (index < 0 || index >= shown.length) return;
  const buttons = [...byId("list").querySelectorAll("button")];
  buttons[current]?.removeAttribute("aria-current");
  current = index;
  buttons[index].setAttribute("aria-current", "true");
  if (focus) buttons[index].focus();
  put(byId("rollout"), pane(shown[index]));
}

function pane(rollout) {
  const outcome = outcomeOf(rollout);
  const verdict = el(
    "b",
    { class: outcome === "right" ? "good" : "bad" },
    `${SYMBOLS[outcome]} ${outcome || "undecided"}`,
  );
  const scores = [
    `answer ${rollout.answer ?? "none"}`,
    `accepted ${rollout.accepted.join(" / ")}`,
    `${rollout.crops} crop${rollout.crops === 1 ? "" : "s"}`,
    labelled("overlap", rollout.overlap),
    labelled("IoU", rollout.iou),
    rollout.failed_calls ? `${rollout.failed_calls} rejected` : null,
    `ending ${rollout.ending}`,
  ];
  const where = [
    rollout.benchmark,
    rollout.category,
    `${rollout.budget.toLocaleString("en")} visual tokens`,
    nameOf(rollout.condition),
    `row ${rollout.row_id}`,
    rollout.sample ? `sample ${rollout.sample}` : null,
  ];
  return [
    el("h3", {}, rollout.question),
    rollout.choices.length > 0 && el("p", {}, rollout.choices.join(" | ")),
    el("p", {}, where.filter(Boolean).join(" · ")),
    el("p", {}, verdict, " · ", scores.filter(Boolean).join(" · ")),
    rollout.sizes.map((size, at) => picture(rollout, size, at)),
    el("ol", { class: "turns" }, rollout.messages.map((message) => turn(message, rollout))),
  ];
}

const address = (rollout, place) => `data:image/jpeg;base64,${data.pictures[rollout.pictures[place]]}`;

/** A shown picture, in pixels of the original, with dashed targets and numbered crops. */
function picture(rollout, size, at) {
  if (!size || rollout.pictures.length <= at) return null;
  const [width, height] = size;
  const targets = rollout.targets.filter((_, index) => rollout.target_images[index] === at + 1);
  const crops = [...rollout.boxes.entries()].filter(([index]) => rollout.box_images[index] === at + 1);
  const name = rollout.sizes.length > 1 ? `Image ${at + 1}` : "The picture";
  const unit = Math.max(width, height) / 40;
  const box = (kind, [left, top, right, bottom]) => {
    const place = { x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0) };
    return [svg("rect", { class: "halo", ...place }), svg("rect", { class: kind, ...place })];
  };
  const crop = ([index, place]) => [
    box("crop", place),
    svg("rect", {
      class: "tag",
      x: place[0],
      y: Math.max(place[1] - unit, 0),
      width: unit * 0.9,
      height: unit,
    }),
    svg(
      "text",
      { x: place[0] + unit * 0.45, y: Math.max(place[1] - unit, 0) + unit / 2, style: `font-size:${unit * 0.8}px` },
      String(index + 1),
    ),
  ];
  return svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      role: "img",
      "aria-label": `${name} as shown, with ${crops.length} crops and ${targets.length} target regions`,
    },
    svg("image", { href: address(rollout, at), width, height, preserveAspectRatio: "none" }),
    targets.flat().map((target) => box("target", target)),
    crops.map(crop),
  );
}

function turn(message, rollout) {
  const parts = message.parts.map((each) => part(each, rollout));
  const role = message.role === "assistant" ? "model" : message.role;
  // The prompt is the same for all rollouts: collapse it.
  if (role === "system" || role === "user")
    return el("li", {}, el("details", {}, el("summary", {}, role), parts));
  return el("li", {}, el("p", { class: "role" }, role), parts);
}

function part(each, rollout) {
  if ("thumbnail" in each) {
    if (!(each.thumbnail in rollout.pictures)) return el("p", {}, "This picture is not in the file.");
    const behind = each.thumbnail - rollout.sizes.length + 1;
    const shown =
      rollout.sizes.length > 1 ? `image ${each.thumbnail + 1} as shown` : "the picture as shown";
    const name = behind > 0 ? `crop ${behind}` : shown;
    const image = el("img", { src: address(rollout, each.thumbnail), alt: name });
    return el("figure", {}, image, el("figcaption", {}, name));
  }
  return el("pre", { class: "says" }, each.text ?? `→ ${each.call}`);
}

for (const name of [...CHOICES, ...OUTCOMES]) byId(`filter-${name}`).addEventListener("change", refilter);
byId("list").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  open(current + step, { focus: true });
});
document.addEventListener("keydown", (event) => {
  const step = { j: 1, k: -1 }[event.key];
  if (!step || isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
  open(current + step, { focus: true });
});
refilter();
