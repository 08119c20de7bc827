// The page of the admin console: it asks the console's other pages and shows what they say. Everything shown is text that
// others wrote, so it only ever becomes text content, never markup.
"use strict";

/** How often figures are asked for again, in milliseconds. */
const REFRESH_MS = 5000;
/** Rows of one table that are asked for and shown; filters find the others. */
const ROWS_MAX = 200;
/** How long a filter is quiet before it is asked with, in milliseconds. */
const TYPING_MS = 250;

const byId = (id) => document.getElementById(id);

/** An element with attributes, holding texts and elements. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

async function ask(page, method = "GET") {
  const answer = await fetch(page, { method });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.json();
}

/** What a section shows: the page it asks, and what becomes of the answer. */
const sections = {};

/** Asks for a section: no more rows than are shown, and of those that its filter lets through. */
async function show(name) {
  const { page, render, waits, rows = "limit" } = sections[name];
  if (waits) return;
  sections[name].waits = true;
  const place = byId(name).querySelector("div");
  const filter = byId(name).querySelector("input");
  const asked = filter ? filter.value : "";
  // What is looked for is text, in which `|` and `.` are often found.
  const wanted = filter ? `&${rows}=${ROWS_MAX}` + (asked ? `&filter=${encodeURIComponent(asked.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"))}` : "") : "";
  try {
    place.replaceChildren(render(await ask(`${page}?format=json${wanted}`)));
  } catch (error) {
    place.replaceChildren(make("p", { class: "quiet" }, error.message));
  }
  sections[name].waits = false;
  if (filter && filter.value !== asked) await show(name);
}

/** A table of these rows, of `matching` that there are. */
function table(heads, rows, empty, matching) {
  if (rows.length === 0) return make("p", { class: "quiet" }, empty);
  const cell = (value) => {
    if (typeof value === "number") return make("td", { class: "number" }, String(value));
    return make("td", {}, value === null || value === undefined ? "" : value);
  };
  const shown = rows.map((row) => make("tr", {}, ...row.map(cell)));
  if (matching > rows.length) {
    const more = `and ${matching - rows.length} more; the filter above finds them`;
    shown.push(make("tr", { class: "more" }, make("td", { colspan: heads.length }, more)));
  }
  const head = make("tr", {}, ...heads.map((text) => make("th", {}, text)));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...shown));
}

const objectName = (object) => {
  const name = object.namespace ? `${object.namespace}/${object.name}` : object.name;
  return `${object.kind} ${name}${object.file ? ` (${object.file}:${object.line})` : ""}`;
};
const words = (name) => name.replaceAll("_", " ");

/** A part of a step, with its own parts. */
function part(step) {
  const whose = step.default ? ` (${step.default})` : "";
  return make(
    "li", {}, make("b", {}, `${words(step.step)}: `), step.what + whose,
    step.object ? make("span", { class: "object" }, objectName(step.object)) : null,
    step.steps ? make("ul", {}, ...step.steps.map(part)) : null,
  );
}

/** Draws an explanation as a path. */
function draw(told) {
  const outcome = told.outcome;
  // An answer of the upstream's may be a failure too.
  const failed = (outcome.status || 0) >= 400 || outcome.grpc_status || outcome.flags || outcome.does === "closes"
    || told.steps.some((step) => step.step === "cause");
  const good = !failed;
  const summary = [words(outcome.does), outcome.status, outcome.flags, outcome.details, outcome.location, outcome.endpoint,
    outcome.cluster].filter(Boolean).join(" · ");
  const steps = told.steps.map((step) => {
    const whose = step.default ? ` (${step.default})` : "";
    const parts = step.steps && step.steps.length > 0
      ? make("details", step.steps.length < 6 ? { open: "" } : {}, make("summary", {}, `${step.steps.length} more`),
        make("ul", {}, ...step.steps.map(part)))
      : null;
    return make(
      "li", {}, make("b", {}, words(step.step)), step.what + whose,
      step.object ? make("span", { class: "object" }, objectName(step.object)) : null, parts,
    );
  });
  const client = make("li", {}, make("b", {}, told.workload), told.asked);
  const end = make("li", { class: `end ${good ? "good" : "bad"}` }, make("b", {}, words(outcome.does)), summary);
  byId("path").replaceChildren(client, ...steps, end);
  const line = byId("outcome");
  line.hidden = false;
  line.className = good ? "good" : "bad";
  line.textContent = `${summary}${told.generation ? `, generation ${told.generation}` : ""}`;
  byId("about").replaceChildren(...(told.findings || []).map((finding) => make("li", {}, finding)));
}

function refuse(error) {
  const line = byId("outcome");
  line.hidden = false;
  line.className = "bad";
  line.textContent = error.message;
  byId("path").replaceChildren();
  byId("about").replaceChildren();
}

async function explain(page, method) {
  try {
    draw(await ask(page, method));
  } catch (error) {
    refuse(error);
  }
}

function explainForm(event) {
  event.preventDefault();
  const query = new URLSearchParams({ format: "json" });
  for (const [name, value] of new FormData(event.target)) {
    const texts = name === "header" ? value.split("\n") : [value];
    for (const text of texts.map((text) => text.trim()).filter(Boolean)) query.append(name, text);
  }
  explainQuery(query);
}

function explainQuery(query) {
  // The console decodes what is percent-encoded, and no plus signs.
  explain(`/explain?${query.toString().replaceAll("+", "%20")}`, "POST");
}

const explainRecorded = (id) => explain(`/recorder?format=json&id=${encodeURIComponent(id)}`);

/** A link that draws a recorded request. */
function recorded(flight) {
  const open = () => {
    explainRecorded(flight.record);
    byId("explain").scrollIntoView();
  };
  return make("button", { class: "link", type: "button", onclick: open }, flight.id || flight.record);
}

const errors = (told) => table(
  ["count", "cause", "examples"],
  told.causes.map((it) => [it.count, it.cause, make("span", {}, ...it.examples.flatMap((flight) => [recorded(flight), " "]))]),
  "nothing failed in the last hour",
);

const recorder = (told) => table(
  ["began", "status", "request", "to", "ms", "why", "id"],
  told.requests.map((it) => [
    it.began, `${it.status || "-"} ${it.flags}`, `${it.method} ${it.authority}${it.path}`, it.endpoint,
    Number((it.took_us / 1000).toFixed(1)), it.sampled ? "sampled" : it.cause, recorded(it),
  ]),
  "nothing of this is recorded: no request has failed or was sampled", told.matching,
);

const clusters = (told) => table(
  ["cluster", "endpoints", "connections", "waiting", "requests", "retries"],
  told.cluster_statuses.map((it) => {
    const counts = it.weft;
    const out = it.host_statuses.filter((host) => host.health_status.failed_outlier_check).length;
    const hosts = it.host_statuses.map((host) => {
      const { address, port_value: port } = host.address.socket_address;
      const bad = host.health_status.failed_outlier_check;
      return make("div", bad ? { class: "bad" } : {}, `${address}:${port}, ${host.stats[0].value} in flight${bad ? ", ejected" : ""}`);
    });
    const some = make("details", out > 0 ? { open: "" } : {},
      make("summary", out > 0 ? { class: "bad" } : {}, `${hosts.length}${out > 0 ? `, ${out} ejected` : ""}`), ...hosts);
    return [it.name, hosts.length > 0 ? some : "0", counts.cx_active, counts.rq_pending_active, counts.rq_active, counts.rq_retry_active];
  }),
  "there are no such clusters", told.weft.matching,
);

function routes(told) {
  const rows = told.rules.map(({ listener, routes: table, virtual_host: host, route }) => {
    const match = Object.entries(route.match).map(([key, value]) => `${key} ${typeof value === "object" ? JSON.stringify(value) : value}`);
    const action = route.route || route.redirect || route.direct_response || {};
    const weighted = action.weighted_clusters && action.weighted_clusters.clusters.map((it) => `${it.weight} ${it.name}`).join(", ");
    const metadata = route.metadata && route.metadata.filter_metadata;
    return [listener ? `${listener}: ${table}` : table, host, route.name || "", match.join(", "),
      weighted || action.cluster || JSON.stringify(action), metadata && metadata.weft ? metadata.weft.place : ""];
  });
  return table(["routes", "virtual host", "rule", "match", "to", "written"], rows, "there are no such rules", told.matching);
}

/** Which connections a filter chain is for, and what becomes of them. */
function chain(it) {
  const told = it.match;
  const match = [
    told.destination_port && `port ${told.destination_port}`,
    told.prefix_ranges && `to ${told.prefix_ranges.map((range) => `${range.address_prefix}/${range.prefix_len}`).join(", ")}`,
    told.server_names && `server name ${told.server_names.join(", ")}`,
    told.transport_protocol && (told.transport_protocol === "tls" ? "TLS" : "no TLS"),
    told.application_protocols && `protocol ${told.application_protocols.join(", ")}`,
  ].filter(Boolean).join(", ") || (it.default ? "all others" : "all");
  const to = it.closed ? `closed: ${it.closed}`
    : it.tcp_clusters ? `bytes to ${it.tcp_clusters.map((to) => `${to.weight ? `${to.weight} ` : ""}${to.name}`).join(", ")}`
      : `HTTP by the routes ${it.http_routes}`;
  return make("div", it.closed ? { class: "bad" } : {},
    `${match}: ${it.terminates_tls ? "terminates TLS, " : ""}${to}${it.place ? ` (${it.place})` : ""}`);
}

const listeners = (told) => table(
  ["listener", "address", "connections and what becomes of them"],
  told.listener_statuses.map((it) => {
    const { address, port_value: port } = it.local_address.socket_address;
    const chains = it.weft ? it.weft.filter_chains : [];
    return [it.name, `${address}:${port}`, make("div", {}, ...chains.map(chain))];
  }),
  "there are no such listeners", told.weft.matching,
);

const findings = (told) => table(
  ["severity", "place", "object", "what", "remedy"],
  told.map((it) => [
    make("span", it.severity === "error" ? { class: "bad" } : {}, it.severity), it.place ? `${it.place.file}:${it.place.line}` : "",
    it.object ? objectName(it.object) : "", `${it.path ? `${it.path}: ` : ""}${it.what}`, it.remedy,
  ]),
  "nothing to say of this",
);

async function state() {
  try {
    const told = await ask("/server_info");
    byId("state").textContent = `${told.version}, ${told.state}, up ${told.uptime_current_epoch}, ${told.node.id || ""}`;
  } catch (error) {
    byId("state").textContent = error.message;
  }
}

Object.assign(sections, {
  errors: { page: "/errors", render: errors },
  recorder: { page: "/recorder", render: recorder, rows: "last" },
  clusters: { page: "/clusters", render: clusters },
  routes: { page: "/routes", render: routes },
  listeners: { page: "/listeners", render: listeners },
  findings: { page: "/findings", render: findings },
});

/** What changes while requests come, and with the configuration. */
const refresh = () => Promise.all([state(), ...Object.keys(sections).map(show)]);

async function begin() {
  byId("question").addEventListener("submit", explainForm);
  for (const name of Object.keys(sections)) {
    const filter = byId(name).querySelector("input");
    let typing;
    if (filter) filter.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(show, TYPING_MS, name);
    });
  }
  await refresh();
  document.body.dataset.ready = "yes";
  // Nobody looks at a page that is hidden.
  setInterval(() => document.hidden || refresh(), REFRESH_MS);
  const parameters = new URLSearchParams(location.search);
  // `/?id=REQUEST-ID` draws a recorded request.
  if (parameters.get("id")) await explainRecorded(parameters.get("id"));
  // `/?explain=QUERY-OF-/explain` asks at once, so that an explanation can be linked to.
  const asked = parameters.get("explain");
  if (asked) {
    const query = new URLSearchParams(asked);
    const form = byId("question");
    let fits = true;
    for (const [name, value] of query) {
      const field = form.elements.namedItem(name);
      if (field) field.value = name === "header" && field.value ? `${field.value}\n${value}` : value;
      else fits = false;
    }
    // What the form has no field for is asked all the same.
    if (fits) form.requestSubmit();
    else {
      query.set("format", "json");
      explainQuery(query);
    }
  }
}

begin();
