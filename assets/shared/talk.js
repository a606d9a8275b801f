// Talking: to the server, and to the visitor. Gradio calls this function body with `element`, the
// component, and `server`, its Python functions, each of which takes one request.

const ui = references(element);

async function call(name, request = {}) {
  let reply;
  try {
    reply = await server[name](request);
  } catch (problem) {
    reply = { error: `${problem.message}; reload the page` };
  }
  // Gradio's client answers undefined where the request failed.
  return reply ?? { error: "The server does not answer; check that app.py still runs, then try again" };
}

const sentence = (words) => (/[.!?]$/.test(words) ? words : `${words}.`);

function complain(words) {
  ui.errors.replaceChildren(message("lab-message is-error", sentence(words)));
}

function notice(words) {
  ui.notices.append(message("lab-message", sentence(words)));
}

function message(kind, words) {
  const box = make("p", { class: kind }, make("span", { text: words }));
  box.append(make("button", { type: "button", class: "lab-button", "aria-label": "Dismiss this message", text: "×", onclick: () => box.remove() }));
  return box;
}
