// The page at /docs: the server's own OpenAPI document, readable, each route to be tried.
"use strict";
const at = (id) => document.getElementById(id);

function add(parent, tag, text = "", kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  parent.append(element);
  return element;
}

function code(parent, text, name) {
  const box = add(parent, "pre", text);
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", name);
  return box;
}

function request(path, method, body) {
  const headers = at("token").value ? { Authorization: `Bearer ${at("token").value}` } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  return fetch(path, { method, headers, body });
}

function showRoute(path, method, operation) {
  const box = add(at("routes"), "details");
  const title = add(box, "summary");
  add(title, "b", `${method.toUpperCase()} ${path}`);
  title.append(` ${operation.summary}`);
  const content = operation.requestBody?.content ?? {};
  for (const [media, { schema }] of Object.entries(content)) {
    add(box, "h3", `Takes ${media}`);
    code(box, JSON.stringify(schema, null, 1), `What ${path} takes as ${media}`);
  }
  for (const [status, answer] of Object.entries(operation.responses)) {
    add(box, "p", `${status}: ${answer.description} (${Object.keys(answer.content).join(", ")})`, "quiet");
  }
  showTry(box, path, method, operation, content["application/json"]);
}

function showTry(box, path, method, operation, media) {
  let address = path;
  for (const { name, example } of operation.parameters ?? []) address = address.replace(`{${name}}`, encodeURIComponent(example));
  const form = add(box, "form");
  const examples = Object.entries(media?.examples ?? {});
  let field;
  if (media) {
    const label = add(form, "label", "Body");
    field = add(form, "textarea");
    field.id = label.htmlFor = `body-${operation.operationId}`;
    field.rows = 5;
    field.value = JSON.stringify(examples[0][1].value, null, 1);
  }
  const row = add(form, "div", "", "row");
  add(row, "button", `Send to ${address}`);
  for (const [name, { value }] of examples.slice(0, 4)) {
    const button = add(row, "button", name.replaceAll("_", " "), "plain");
    button.type = "button";
    button.onclick = () => { field.value = JSON.stringify(value, null, 1); };
  }
  const shown = code(form, "", `Answer of ${method} ${path}`);
  shown.hidden = true;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const response = await request(address, method.toUpperCase(), field?.value);
    const text = await response.text();
    let readable = text;
    try { readable = JSON.stringify(JSON.parse(text), null, 1); } catch { /* not JSON */ }
    shown.textContent = `${response.status}\n${readable}`;
    shown.hidden = false;
  });
}

async function start() {
  const response = await request("/openapi.json", "GET");
  if (!response.ok) throw new Error(response.status === 401 ? "Give an access token." : `The server answers ${response.status}.`);
  const api = await response.json();
  at("name").textContent = `${api.info.title}: API`;
  at("about").textContent = `OpenAPI ${api.openapi} · version ${api.info.version.slice(0, 12)}`;
  at("status").textContent = "";
  at("routes").replaceChildren();
  at("schemas").replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) showRoute(path, method, operation);
  }
  for (const [name, schema] of Object.entries(api.components.schemas)) {
    const box = add(at("schemas"), "details");
    add(add(box, "summary"), "b", name);
    code(box, JSON.stringify(schema, null, 1), name);
  }
}

const begin = () => start().catch((error) => { at("status").textContent = error.message; });
at("token").addEventListener("change", begin);
begin();
