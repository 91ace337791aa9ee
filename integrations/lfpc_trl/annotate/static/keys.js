// Every key of the page, once: what it does and how the list on `?` says it.

const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"];
const withEach = (prefix) => ARROWS.map((arrow) => prefix + arrow);

/**
 * Sections of the list. An entry is [as it is shown, what it does, the action, its keys]; what is done with the mouse has no
 * action. Keys are named as `nameOf` names them.
 */
export const KEYS = [
  [
    "Boxes",
    [
      ["drag", "draw a box, also inside another"],
      ["D", "draw a box in the middle of the view", "drawHere", ["D"]],
      ["click", "select a box; again: the one around it"],
      ["B, Shift + B", "select the next box, the one before", "stepBox", ["B", "Shift+B"]],
      ["drag an edge", "resize the selected box"],
      ["Shift + drag", "move the selected box"],
      [
        "arrows",
        "move it by one pixel, with Shift by ten; without a box the picture",
        "arrow",
        [...ARROWS, ...withEach("Shift+")],
      ],
      [
        "Ctrl + arrows",
        "move its right or bottom edge, with Shift its left or top edge",
        "arrowEdge",
        [...withEach("Ctrl+"), ...withEach("Ctrl+Shift+")],
      ],
      ["Delete", "delete it", "remove", ["Delete", "Backspace"]],
      ["Escape", "select none; stop drawing", "escape", ["Escape"]],
      ["G", "grow outer boxes around inner ones", "growBoxes", ["G"]],
      ["N", "no boxes needed: the row is for stage 1", "toggleWithoutBoxes", ["N"]],
    ],
  ],
  [
    "Regions",
    [
      ["R", "the next box starts a new region (another object)", "newRegion", ["R"]],
      ["1 to 9", "go on in that region", "chooseRegion", [..."123456789"]],
      ["M", "move the selected box into a region of its own", "splitBox", ["M"]],
    ],
  ],
  [
    "Model's boxes",
    [
      ["U", "ask the model: what it looks at is proposed", "propose", ["U"]],
      ["A", "accept the highlighted box; also a click on its label", "accept", ["A"]],
      ["Shift + A", "drop it", "drop", ["Shift+A"]],
      ["[ and ]", "highlight another one", "browse", ["[", "]"]],
    ],
  ],
  [
    "Undo",
    [
      ["Ctrl + Z", "undo: boxes, texts, choices, also while typing", "undo", ["Ctrl+Z"]],
      ["Ctrl + Y", "redo; also Ctrl + Shift + Z", "redo", ["Ctrl+Y", "Ctrl+Shift+Z"]],
    ],
  ],
  [
    "Texts",
    [
      ["Q, C, W, E", "to question, choices, answer, note", "toField", ["Q", "C", "W", "E"]],
      ["Escape", "leave the field"],
    ],
  ],
  [
    "Rows",
    [
      ["Enter", "done, go to the next open row; from a field Ctrl + Enter", "done", ["Enter", "Ctrl+Enter"]],
      ["J and K", "next and previous row", "stepRow", ["J", "K"]],
      ["P, Shift + P", "next and previous picture of a row about several", "stepPicture", ["P", "Shift+P"]],
      ["S", "skip", "skip", ["S"]],
      ["F", "flag for another look, and back", "toggleFlag", ["F"]],
      ["/ and T", "search; which rows are listed", "toList", ["/", "T"]],
    ],
  ],
  [
    "Questions of a picture",
    [
      ["I", "add a question", "addQuestion", ["I"]],
      [", and .", "previous and next question of this picture", "stepQuestion", [",", "."]],
      ["X", "delete an added question, and bring it back", "toggleDeleted", ["X"]],
    ],
  ],
  [
    "View",
    [
      ["wheel, +, −", "zoom", "zoom", ["+", "=", "-"]],
      ["space + drag", "move the picture; also drag with the right button"],
      ["H", "hand: drags move the picture until H is pressed again", "toggleHand", ["H"]],
      ["fingers", "one draws, two move and zoom"],
      ["0, O, Z", "fit, 1:1, zoom to the selected box", "look", ["0", "O", "Z"]],
      ["V", "as the model sees it", "showModel", ["V"]],
      ["L", "files that were left out", "showLeftOut", ["L"]],
      ["?", "this list", "help", ["?"]],
    ],
  ],
];

const ACTIONS = new Map(
  KEYS.flatMap(([, entries]) =>
    entries.flatMap(([, , action, keys = []]) => keys.map((key) => [key, action])),
  ),
);

/** The name of the key of an event, with the keys that are held: "B", "Shift+B", "Ctrl+ArrowUp"; Alt belongs to the browser. */
export function nameOf(event) {
  if (event.altKey) return "Alt";
  const isLetter = /^[a-z]$/i.test(event.key);
  const key = isLetter ? event.key.toUpperCase() : event.key;
  const isShifted = event.shiftKey && (isLetter || event.key.length > 1);
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${isShifted ? "Shift+" : ""}${key}`;
}

/** The name of the action of an event, or undefined. */
export const actionOf = (event) => ACTIONS.get(nameOf(event));
