// The picture, the question, and the model's looks one after another as they happen.

import { getJSON, postJSON } from "/static/shared/api.js";
import { byId, el, put, svg } from "/static/shared/dom.js";

const PAUSE = 250; // milliseconds between two questions to the server while the model works

const about = await getJSON("/api/about");
const [width, height] = about.size;
byId("model").textContent = about.model;
byId("about").textContent =
  `${about.picture}, ${width} × ${height} pixels, shown as ${about.shown.join(" × ")} (${about.tokens} tokens)`;

const boxes = svg("g");
put(
  byId("stage"),
  svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": about.picture },
    svg("image", { href: "/picture", width, height }),
    boxes,
  ),
);

const seconds = (value) => `${value.toFixed(1)} s`;
let number = 0;
let drawn = 0;

function begin(state) {
  number = state.number;
  drawn = 0;
  put(boxes);
  put(byId("looks"));
  put(byId("turns"));
  byId("answer").textContent = "";
  byId("words").hidden = true;
}

function drawLook(look, index) {
  const [x1, y1, x2, y2] = look.box;
  boxes.lastElementChild?.querySelector("rect").classList.remove("last");
  boxes.append(
    svg(
      "g",
      { class: "look" },
      svg("rect", { class: "last", x: x1, y: y1, width: x2 - x1, height: y2 - y1 }),
      svg("text", { x: x1, y: Math.max(y1, height / 40), "font-size": height / 40 }, `${index + 1}`),
    ),
  );
  byId("looks").append(
    el(
      "li",
      {},
      el("img", { src: `/looks/${number}/${index}`, alt: `Crop ${index + 1}` }),
      el("span", { class: "mono" }, `${index + 1}  [${look.box.join(", ")}]`),
      el("span", { class: "quiet" }, `  ${look.tokens} tokens, ${seconds(look.seconds)}`),
    ),
  );
}

function show(state) {
  if (state.number !== number) begin(state);
  const told = state.told;
  if (told !== null) {
    told.looks.slice(drawn).forEach((look, place) => drawLook(look, drawn + place));
    drawn = told.looks.length;
    byId("words").hidden = told.turns.length === 0;
    put(byId("turns"), ...told.turns.map((turn) => el("p", {}, turn)));
  }
  byId("ask").disabled = state.busy;
  if (state.busy) {
    byId("status").textContent = drawn === 0 ? "The model looks at the whole picture …" : `Looking, ${drawn} crops so far …`;
  } else if (state.problem !== null) {
    byId("status").textContent = state.problem;
  } else if (told !== null) {
    byId("answer").textContent = told.answer ?? "No answer.";
    byId("status").textContent =
      `${told.turns.length} turns, ${told.tokens_read} tokens read, ${told.tokens_written} written, ${seconds(told.seconds)}`;
  }
}

async function follow() {
  try {
    for (;;) {
      const state = await getJSON("/api/state");
      show(state);
      if (!state.busy) return;
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  } catch (error) {
    byId("status").textContent = error.message;
    byId("ask").disabled = false;
  }
}

byId("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const question = byId("question").value.trim();
  if (question === "") return;
  byId("ask").disabled = true;
  try {
    await postJSON("/api/ask", { question });
  } catch (error) {
    byId("status").textContent = error.message;
  }
  await follow();
});

await follow();
