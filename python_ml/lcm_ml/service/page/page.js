// All that the service says is put in as text, never as mark-up.
"use strict";

const KEY = "lcm-token";
const element = (id) => document.getElementById(id);
const [login, search, results, card] = ["login", "search", "results", "card"].map(element);
let asked = 0; // the newest search: an answer to an older one comes too late

function make(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(message) {
  element("message").textContent = message;
  element("message").hidden = !message;
}

function ask_for_token(message) {
  sessionStorage.removeItem(KEY);
  search.hidden = results.hidden = card.hidden = true;
  login.hidden = false;
  say(message);
  element("token").focus();
}

/** The answer's document; null where there is nothing or the user was told why not. */
async function get(path, absent = "") {
  let answer;
  try {
    answer = await fetch(path, { headers: { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` } });
  } catch {
    say("The service does not answer: is it still running?");
    return null;
  }
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401) ask_for_token("This is not the token of this service.");
  else if (answer.status !== 404) say(problem.detail || `The service answered ${answer.status}.`);
  else if (absent) say(absent);
  return null;
}

async function open_page() {
  const token = sessionStorage.getItem(KEY);
  if (!token) return ask_for_token("");
  login.hidden = true;
  search.hidden = false;
  element("query").focus();
  const health = await get("/v1/health");
  if (health) {
    const published = new Date(health.created_at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
    element("about").textContent = `As of ${health.as_of_date}; published ${published}.`;
  }
}

async function find(query) {
  const mine = ++asked;
  const found = await get(`/v1/users?q=${encodeURIComponent(query)}`);
  if (!found || mine !== asked) return;
  say(found.users.length ? "" : `No user's id starts with ${query}.`);
  element("status").textContent = `${found.users.length} users found`;
  results.replaceChildren(...found.users.map(found_user));
  results.hidden = !found.users.length;
  card.hidden = true;
  const exact = found.users.find((user) => user.user_id === query) || (found.users.length === 1 && found.users[0]);
  if (exact) show(exact.user_id, false);
}

function found_user(user) {
  const button = make("button");
  button.type = "button";
  button.dataset.user = user.user_id;
  const about = [words_of(user.stage), user.risk_band && `${user.risk_band} risk`, user.segment_name];
  button.append(make("b", user.user_id), make("span", about.filter(Boolean).join(", ")));
  button.addEventListener("click", () => show(user.user_id, true));
  const item = make("li");
  item.append(button);
  return item;
}

async function show(user, focus) {
  const mine = ++asked;
  const path = `/v1/users/${encodeURIComponent(user)}`;
  const [found, next] = await Promise.all([
    get(`${path}/profile`, `Nothing is known of ${user} any more.`), get(`${path}/next-action`),
  ]);
  if (!found || mine !== asked) return;
  say("");
  for (const button of results.querySelectorAll("button")) {
    if (button.dataset.user === user) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  const title = make("h2", `User ${user}`);
  title.id = "card-title";
  const parts = make("div", "", "parts");
  parts.append(...found.card.map(part_of_card));
  card.replaceChildren(title, tiles(found.profile));
  if (next) card.append(next_action(next.next_action));
  card.append(parts, make("p", `As of ${found.profile.as_of_date}, snapshot ${found.snapshot_id}. Attributes marked sensitive are never used by models.`, "quiet"));
  card.hidden = false;
  element("status").textContent = `The card of user ${user} is shown`;
  if (focus) card.focus();
}

function tiles(profile) {
  const money = (value) => Math.round(value).toLocaleString("en-GB");
  const known = [
    [words_of(profile.stage), "stage"],
    [profile.churn_probability != null && `${(100 * profile.churn_probability).toFixed(1)} %`, `churn, ${profile.risk_band} risk`],
    [profile.lifetime_value != null && money(profile.lifetime_value), "lifetime value"],
    [profile.expected_amount_90d != null && money(profile.expected_amount_90d), "expected in 90 days"],
    [profile.segment_name, "segment"],
  ];
  const list = make("ul", "", "tiles");
  for (const [figure, words] of known) {
    if (!figure) continue;
    const tile = make("li");
    tile.append(make("b", figure), make("span", words));
    list.append(tile);
  }
  return list;
}

function next_action(next) {
  const box = make("section", "", "next");
  const how = [
    next.channel && `by ${next.channel}`, next.offer && `offer: ${words_of(next.offer)}`, next.product_id && `product: ${next.product_title || next.product_id}`,
    [next.send_weekday, next.send_daypart].filter((part) => part != null).join(" "),
    next.expected_profit != null && `expected profit ${next.expected_profit.toFixed(2)}`,
  ];
  box.append(make("h3", "Next action"), make("p", words_of(next.action) || "nothing", "what"));
  if (how.some(Boolean)) box.append(make("p", how.filter(Boolean).join(", ")));
  if (next.why) box.append(make("p", next.why));
  if (next.blocked_by) box.append(make("p", `Not to be sent: ${next.blocked_by}`, "warning"));
  return box;
}

function words_of(name) {
  return name ? name.replaceAll("_", " ") : "";
}

function part_of_card(part) {
  const section = make("section");
  const list = make("dl");
  for (const line of part.lines) {
    const row = make("div", "", "line");
    row.append(make("dt", line.label), make("dd", line.text));
    list.append(row);
  }
  section.append(make("h3", part.title), list);
  return section;
}

login.addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, element("token").value.trim());
  element("token").value = "";
  say("");
  // Health needs no token: a look-up tells whether it is the right one.
  get("/v1/users?q=0").then((found) => found && open_page());
});

let pause; // until what was typed is looked for
search.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(pause);
  const query = element("query").value.trim();
  if (query) find(query);
});

element("query").addEventListener("input", () => {
  clearTimeout(pause);
  const query = element("query").value.trim();
  if (query) pause = setTimeout(() => find(query), 250);
});

open_page();
