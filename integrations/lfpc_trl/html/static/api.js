// Requests to the server that sent the page.

/** The server answered, but not with what was asked for. `status` is 0 where it did not answer at all. */
export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Refusal(0, "The server does not answer.");
  }
  return response;
}

/** The JSON at a path. */
export async function getJSON(path) {
  const response = await ask(path, {});
  if (!response.ok) throw new Refusal(response.status, await response.text());
  return response.json();
}

/** A picture at a path: its blob and its headers. */
export async function getPicture(path, signal) {
  const response = await fetch(path, { signal });
  if (!response.ok) throw new Refusal(response.status, await response.text());
  return { blob: await response.blob(), headers: response.headers };
}

/** Posts JSON. Gives the status, 200 or 409, and the answer. */
export async function postJSON(path, body) {
  const text = JSON.stringify(body);
  const response = await ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: text,
    keepalive: text.length < 30000, // goes on when the page is closed; browsers allow 64 kB
  });
  if (response.status !== 200 && response.status !== 409)
    throw new Refusal(response.status, await response.text());
  return { status: response.status, answer: await response.json() };
}
