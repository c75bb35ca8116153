// The page at /: asks the server for labels and pieces, and shows what is known of the model.
"use strict";
const SHOWN = 8;
const at = (id) => document.getElementById(id);
let card = null;

/** An element with a text and a class, as a child of another. */
function add(parent, tag, text = "", kind = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  if (kind) element.className = kind;
  parent.append(element);
  return element;
}

/** JSON from the server; its own words when it refuses. */
async function ask(path, body) {
  const headers = at("token").value ? { Authorization: `Bearer ${at("token").value}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  const response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  if (response.status === 401) {
    at("token-field").hidden = false;
    at("token").focus();
    throw new Error("This server wants an access token.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function tell(text, bad = false) {
  at("status").textContent = text;
  at("status").className = bad ? "bad" : "";
}

function showCard() {
  document.title = at("name").textContent = card.name;
  at("about").textContent = `${card.task} · version ${card.version.slice(0, 12)}`;
  at("second-field").hidden = !card.text_pair;
  at("second").required = card.text_pair;
  at("first-label").textContent = card.text_pair ? "First text" : "Text";
  at("facts").replaceChildren();
  const labels = card.labels.length > 12 ? `${card.labels.length} labels` : card.labels.join(", ");
  const facts = { Task: card.task, Labels: labels, Form: card.model.form, "Longest input": `${card.max_length} tokens`, Version: card.version };
  for (const [name, value] of Object.entries(facts)) {
    add(at("facts"), "dt", name);
    add(at("facts"), "dd", value);
  }
  showScores();
  at("gate").replaceChildren();
  for (const rule of card.gate) {
    const line = add(at("gate"), "li");
    add(line, "span", rule.passed ? "✓ passed " : "✗ failed ", rule.passed ? "good" : "bad");
    line.append(rule.text ?? rule.rule);
  }
  if (!card.gate.length) add(at("gate"), "li", "This bundle has no gate results.", "quiet");
}

function showScores() {
  at("scores").replaceChildren();
  const served = card.scores[card.model.form];
  if (!served) return void add(at("scores"), "p", "This bundle has no scores.", "quiet");
  const box = add(at("scores"), "div", "", "scroll");
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", "Scores per split with their 95 % intervals");
  const table = add(box, "table");
  const head = add(add(table, "thead"), "tr");
  for (const text of ["Split", "Score", "Value", "Interval"]) add(head, "th", text).scope = "col";
  const rows = add(table, "tbody");
  for (const [split, scores] of Object.entries(served)) {
    for (const [name, score] of Object.entries(scores)) {
      if (typeof score?.value !== "number") continue;
      const row = add(rows, "tr");
      const interval = typeof score.low === "number" ? `${score.low.toFixed(3)} – ${score.high.toFixed(3)}` : "";
      for (const text of [split, name.replaceAll("_", " "), score.value.toFixed(3), interval]) add(row, "td", text);
    }
  }
}

function showAnswer(prediction) {
  at("bars").replaceChildren();
  at("all").hidden = true;
  if (card.task === "regression") return void row(card.labels[0], prediction.value, false, false);
  const applies = new Set(prediction.labels ?? [prediction.label]);
  prediction.scores.forEach(({ label, score }, index) => {
    row(label, score, applies.has(label), index >= SHOWN && !applies.has(label));
  });
  const hidden = at("bars").querySelectorAll("li[hidden]");
  at("all").hidden = !hidden.length;
  at("all").textContent = `Show ${hidden.length} more`;
  at("all").onclick = () => {
    hidden.forEach((line) => { line.hidden = false; });
    at("all").hidden = true;
  };
}

function row(label, score, applies, hidden) {
  const line = add(at("bars"), "li", "", applies ? "applies" : "");
  line.hidden = hidden;
  const bar = card.task !== "regression";
  const position = card.labels.indexOf(label);
  const needed = card.thresholds ? ` of ${(100 * card.thresholds[position]).toFixed(0)} % needed` : "";
  add(line, "span", applies ? `✓ ${label}` : label, "label");
  add(line, "span", bar ? `${(100 * score).toFixed(1)} %${needed}` : score.toFixed(3), "number");
  if (!bar) return;
  const meter = add(line, "meter");
  meter.value = score;
  meter.setAttribute("aria-label", label);
}

/** Each text again, every piece marked; offsets count characters, not UTF-16 units. */
function showPieces(texts, answer) {
  at("pieces").replaceChildren();
  texts.forEach((text, index) => {
    const characters = Array.from(text);
    const line = add(at("pieces"), "p");
    let end = 0;
    let odd = false;
    for (const piece of answer.pieces.filter((each) => each.text === index)) {
      line.append(characters.slice(end, piece.start).join(""));
      const mark = add(line, "mark", characters.slice(Math.max(end, piece.start), piece.end).join(""), odd ? "odd" : "");
      mark.title = piece.piece;
      odd = !odd;
      end = Math.max(end, piece.end);
    }
    add(line, "span", characters.slice(end).join(""), answer.truncated ? "cut" : "");
  });
  const count = `${answer.pieces.length} pieces${answer.truncated ? "; the rest is cut off" : ""}`;
  add(at("pieces"), "p", count, "quiet");
}

async function classify(event) {
  event.preventDefault();
  tell("…");
  try {
    if (!card) await start();
    const texts = card.text_pair ? [at("first").value, at("second").value] : [at("first").value];
    const body = card.text_pair ? { pair: texts } : { text: texts[0] };
    const begin = performance.now();
    const answer = await ask("/predict", body);
    const took = performance.now() - begin;
    const pieces = await ask("/tokenize", body);
    const [prediction] = answer.predictions;
    showAnswer(prediction);
    showPieces(texts, pieces);
    at("answer").hidden = false;
    const found = prediction.labels ? prediction.labels.join(", ") || "no label applies" : prediction.label ?? prediction.value.toFixed(3);
    tell(`${found} · ${took.toFixed(1)} ms · ${prediction.tokens} tokens`);
  } catch (error) {
    at("answer").hidden = true;
    tell(error.message, true);
  }
}

async function start() {
  card = await ask("/model");
  showCard();
}

at("form").addEventListener("submit", classify);
at("form").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
});
start().catch((error) => tell(error.message, true));
