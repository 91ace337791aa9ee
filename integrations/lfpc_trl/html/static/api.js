// Requests to the server that sent the page.

/** An error response of the server; `status` is 0 if there was no response. */
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
    throw new Refusal(0, "The server does not respond.");
  }
  return response;
}

/** Fetches JSON from a path. */
export async function getJSON(path) {
  const response = await ask(path, {});
  if (!response.ok) throw new Refusal(response.status, await response.text());
  return response.json();
}

/** Fetches a picture from a path: its blob and headers. */
export async function getPicture(path, signal) {
  const response = await fetch(path, { signal });
  if (!response.ok) throw new Refusal(response.status, await response.text());
  return { blob: await response.blob(), headers: response.headers };
}

/** Posts JSON. Returns the status, 200 or 409, and the answer. */
export async function postJSON(path, body) {
  const text = JSON.stringify(body);
  const response = await ask(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: text,
    keepalive: text.length < 30000, // continues after the page is closed; browsers allow 64 kB
  });
  if (response.status !== 200 && response.status !== 409)
    throw new Refusal(response.status, await response.text());
  return { status: response.status, answer: await response.json() };
}
