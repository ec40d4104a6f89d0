"use strict";
// Answers, as dsom-predict gives them by default: crates/predict/src/answer.rs and why.rs say why each step is so.

const TOP = 10, OPTIONS = 12;
const $ = id => document.getElementById(id);

// What the file holds.

function bytesOf(id) {
  const text = atob($(id).textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  $(id).remove();
  return bytes.buffer;
}

function halfToFloat(bits) {
  const exponent = bits >> 10 & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : fraction * 2 ** -24);
}

function floatsOf(id, half) {
  if (!half) return new Float32Array(bytesOf(id));
  const values = Float32Array.from({ length: 1 << 16 }, (_, bits) => halfToFloat(bits));
  return new Float32Array(new Uint16Array(bytesOf(id))).map(bits => values[bits]);
}

const graph = JSON.parse($("graph").textContent);
const { entities, relations, embedding } = graph;
const [table, relationTable, core] = ["entities", "relations", "core"].map(id => floatsOf(id, graph.half));
const [train, valid] = ["train", "valid"].map(id => new Uint32Array(bytesOf(id)));
const width = table.length / entities.length, relationWidth = relationTable.length / (2 * relations.length);
const isDistance = ["transe", "rotate"].includes(graph.backbone);
const rowOf = entity => table.subarray(entity * width, (entity + 1) * width);

// What train has: entities, and relations with a fact from an entity to itself.
const trained = new Set(), trainedRelations = new Set(), loops = new Set();
for (let i = 0; i < train.length; i += 3) {
  const [head, relation, tail] = train.subarray(i, i + 3);
  trained.add(head).add(tail);
  trainedRelations.add(relation);
  if (head === tail) loops.add(relation);
}

// Scores: crates/kge/src/backbone.rs.

const sumOfSquares = row => row.reduce((sum, x) => sum + x * x, 0);
// A square norm in half precision would not be that of its row.
if (graph.half && isDistance)
  for (let id = 0; id < entities.length; id++) rowOf(id)[embedding] = -sumOfSquares(rowOf(id).subarray(0, embedding));

function complexProduct(head, relation) {
  const rank = relation.length / 2, query = new Float32Array(relation.length);
  for (let i = 0; i < rank; i++) {
    query[i] = head[i] * relation[i] - head[rank + i] * relation[rank + i];
    query[rank + i] = head[i] * relation[rank + i] + head[rank + i] * relation[i];
  }
  return query;
}

const byDistance = query => Float32Array.of(...query.map(x => 2 * x), 1, -sumOfSquares(query));

const COMPOSE = {
  complex: complexProduct,
  distmult: (head, relation) => relation.map((x, i) => head[i] * x),
  transe: (head, relation) => byDistance(relation.map((x, i) => head[i] + x)),
  rotate: (head, phases) =>
    byDistance(complexProduct(head, Float32Array.of(...phases.map(Math.cos), ...phases.map(Math.sin)))),
  tucker: (head, relation) => {
    const query = new Float64Array(width);
    relation.forEach((r, a) => head.forEach((h, i) => {
      const from = (a * width + i) * width;
      for (let j = 0; j < width; j++) query[j] += r * h * core[from + j];
    }));
    return query;
  },
};

/** The scores of all entities for (head, relation, ?), where relations from their number on are inverses. */
function scoresOf(head, relation) {
  const of = relationTable.subarray(relation * relationWidth, (relation + 1) * relationWidth);
  const query = COMPOSE[graph.backbone](rowOf(head), of), scores = new Float64Array(entities.length);
  for (let entity = 0, at = 0; entity < scores.length; entity++) {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += query[i] * table[at++];
    scores[entity] = sum;
  }
  return scores;
}

/** The facts of a relation among `triples` as pairs: what a query starts from, and its answer. */
function pairsOf(triples, relation) {
  const base = relation % relations.length, inverted = relation >= relations.length, pairs = [];
  for (let i = 0; i < triples.length; i += 3)
    if (triples[i + 1] === base) pairs.push(inverted ? [triples[i + 2], triples[i]] : [triples[i], triples[i + 2]]);
  return pairs;
}

/** The best answers to (head, relation, ?); how many known ones are left out; whether the head itself would be among them. */
function answer(head, relation, includeKnown) {
  const facts = [train, valid].flatMap(triples => pairsOf(triples, relation));
  const known = new Set(facts.filter(([from]) => from === head).map(([, to]) => to));
  const scores = scoresOf(head, relation), largest = scores.reduce((a, b) => Math.max(a, b));
  const total = scores.reduce((sum, score) => sum + Math.exp(score - largest), 0);
  const listed = [...scores.keys()].filter(id => includeKnown || !known.has(id));
  const best = listed.sort((a, b) => scores[b] - scores[a] || a - b).slice(0, TOP + 1);
  const isItself = id => id === head && !loops.has(relation % relations.length) && !known.has(id);
  const itself = best.slice(0, TOP).some(isItself);
  const answers = best.filter(id => !isItself(id)).slice(0, TOP).map(id => (
    { id, score: scores[id], probability: Math.exp(scores[id] - largest) / total, known: known.has(id) }));
  return { answers, left: includeKnown ? 0 : known.size, itself };
}

// Why: known facts that resemble an answer.

function cosinesOf(entity) {
  const own = rowOf(entity).subarray(0, embedding), square = sumOfSquares(own);
  return entities.map((_, other) => {
    const row = rowOf(other).subarray(0, embedding), both = square * sumOfSquares(row);
    return both > 0 ? row.reduce((sum, x, i) => sum + x * own[i], 0) / Math.sqrt(both) : 0;
  });
}

function factsOf(head, relation, id) {
  const [ofHead, ofAnswer] = [head, id].map(cosinesOf);
  return pairsOf(train, relation)
    .map(([from, to]) => ({ from, to, asked: ofHead[from], answered: ofAnswer[to] }))
    .filter(({ from, to, asked, answered }) => (from !== head || to !== id) && asked > graph.near && answered > graph.near)
    .sort((a, b) => b.asked * b.answered - a.asked * a.answered).slice(0, graph.facts);
}

// The page. Texts of the dataset are text nodes, each in its own reading direction.

function element(tag, attributes, ...children) {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
}

const labelOf = ([key, name]) => name ?? key;
const entityLabel = id => element("bdi", {}, labelOf(entities[id]));
const relationLabel = id => element("bdi", {}, labelOf(relations[id]));
/** The triple of a query and its answer in the order of head, relation, tail. */
const triple = (relation, from, to) => {
  const base = relation % relations.length, parts = [from, " · ", relationLabel(base), " · ", to];
  return relation < relations.length ? parts : parts.reverse();
};
/** An entity's key where its name is another word. */
const otherKey = id => labelOf(entities[id]) === entities[id][0] ? "" : entities[id][0];
/** An entity's name and key, `tags`, and its description. */
const words = (id, tags = []) => [
  element("b", {}, entityLabel(id)), " ", element("bdi", { className: "key" }, otherKey(id)), " ",
  ...tags.map(tag => element("span", { className: "tag" }, tag)),
  element("p", { className: "soft", dir: "auto" }, entities[id][2] ?? ""),
];
const image = id => entities[id][3] ? [element("img", { src: entities[id][3], alt: "" })] : [];

function explanation(head, relation, id) {
  const like = (other, own, cosine) =>
    other === own ? [] : [[entityLabel(other), " like ", entityLabel(own), " " + cosine.toFixed(2)]];
  const lines = factsOf(head, relation, id).map(({ from, to, asked, answered }) => {
    const likes = [...like(from, head, asked), ...like(to, id, answered)];
    const between = likes.length > 1 ? [...likes[0], ", ", ...likes[1]] : likes[0];
    return element("li", {}, ...triple(relation, entityLabel(from), entityLabel(to)), " (", ...between, ")");
  });
  return lines.length ? element("ul", {}, ...lines) : element("p", {}, "No known fact of this relation resembles it.");
}

function rowFor({ id, score, probability, known }, place, head, relation) {
  const tags = [known && "known", !trained.has(id) && "a guess"].filter(Boolean);
  const why = element("details", {}, element("summary", { ariaLabel: `Why ${labelOf(entities[id])}` }, "Why"));
  why.addEventListener("toggle", () => why.children.length > 1 || why.append(explanation(head, relation, id)));
  return element("tr", {}, element("td", { className: "n" }, place + 1),
    element("td", {}, element("div", { className: "answer" }, ...image(id), element("div", {}, ...words(id, tags), why))),
    element("td", { className: "n" }, score.toFixed(4)),
    element("td", { className: "n" }, (100 * probability).toFixed(2) + "\u00a0%"));
}

let asked = null;

function show() {
  const base = Number($("relation").value), inverted = $("question").elements.place.value === "head";
  const from = () => asked === null ? "entity" : entityLabel(asked), relation = base + (inverted ? relations.length : 0);
  $("tail").replaceChildren(...triple(base, from(), "?"));
  $("head").replaceChildren(...triple(base + relations.length, from(), "?"));
  $("answers").hidden = asked === null;
  if (asked === null) return;
  const { answers, left, itself } = answer(asked, relation, $("known").checked);
  const notes = [];
  if (left) notes.push(`Left out: ${left} known from train or valid. `);
  if (itself) notes.push("Left out: ", from(), " itself, as train has no such fact. ");
  if (!trained.has(asked)) notes.push(from(), " is in no training triple: what is said of it is a guess. ");
  if (!trainedRelations.has(base)) notes.push("The relation is in no training triple: its answers are guesses. ");
  $("asked").replaceChildren(...triple(relation, from(), "?"));
  $("hint").replaceChildren(`${answers.length} answers: `, ...triple(relation, from(), "?"));
  $("notes").replaceChildren(...notes);
  $("rows").replaceChildren(...answers.map((found, place) => rowFor(found, place, asked, relation)));
}

function choose(id) {
  asked = id;
  $("entity").value = labelOf(entities[id]);
  closeList();
  $("about").replaceChildren(...image(id), element("div", {}, ...words(id)));
  show();
}

// The box for an entity: the editable combobox of the ARIA Authoring Practices.

const folded = text => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
const searched = entities.map(([key, name]) => [key, name ?? ""].map(folded));
let found = [], active = -1;

/** How well a text is what was typed: 0 best, infinite if it is not in there. */
function distance(text, typed) {
  const at = text.indexOf(typed);
  return at < 0 ? Infinity : (at === 0 ? 0 : text[at - 1] === " " ? 1e3 : 1e6) + text.length - typed.length;
}

function search(text) {
  const typed = folded(text.trim());
  const near = searched.map((texts, id) => [Math.min(...texts.map(each => distance(each, typed))), id]);
  return typed ? near.filter(([far]) => far < Infinity).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map(([, id]) => id) : [];
}

function openList() {
  const all = search($("entity").value);
  found = all.slice(0, OPTIONS);
  $("found").replaceChildren(...found.map((id, place) => {
    const more = element("small", { dir: "auto" }, [otherKey(id), entities[id][2]].filter(Boolean).join(" · "));
    const option = element("li", { id: "option-" + place, role: "option" },
      ...image(id), element("div", {}, entityLabel(id), " ", more));
    option.addEventListener("mousedown", event => event.preventDefault());
    option.addEventListener("click", () => choose(id));
    return option;
  }));
  $("hint").textContent = $("entity").value.trim() === "" ? "Type a part of a name or a key."
    : all.length > OPTIONS ? `${all.length} found, the nearest ${OPTIONS} are listed.` : `${all.length} found.`;
  $("found").hidden = found.length === 0;
  $("entity").setAttribute("aria-expanded", String(found.length > 0));
  activate(-1);
}

function closeList() {
  $("found").hidden = true;
  $("entity").setAttribute("aria-expanded", "false");
  activate(-1);
}

function activate(place) {
  active = place;
  [...$("found").children].forEach((option, i) => option.setAttribute("aria-selected", String(i === place)));
  const option = $("found").children[place];
  if (option) option.scrollIntoView({ block: "nearest" });
  if (option) $("entity").setAttribute("aria-activedescendant", option.id);
  else $("entity").removeAttribute("aria-activedescendant");
}

const KEYS = {
  ArrowDown: () => $("found").hidden ? openList() : activate((active + 1) % found.length),
  ArrowUp: () => $("found").hidden ? openList() : activate((active <= 0 ? found.length : active) - 1),
  Enter: () => $("found").hidden || choose(found[Math.max(active, 0)]),
  Escape: () => $("found").hidden ? ($("entity").value = "") : closeList(),
};

$("entity").addEventListener("input", openList);
$("entity").addEventListener("focus", () => $("entity").select());
$("entity").addEventListener("blur", () => { closeList(); if (asked !== null) $("entity").value = labelOf(entities[asked]); });
$("entity").addEventListener("keydown", event => {
  if (!KEYS[event.key] || event.isComposing) return;
  event.preventDefault();
  KEYS[event.key]();
});
$("question").addEventListener("submit", event => event.preventDefault());
$("question").addEventListener("change", event => event.target === $("entity") || show());

const byLabel = relations.map((relation, id) => [labelOf(relation), id]).sort((a, b) => a[0].localeCompare(b[0]));
$("relation").append(...byLabel.map(([label, id]) => element("option", { value: id }, label)));
show();
