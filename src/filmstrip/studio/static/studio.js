"use strict";
// What the studio's pages do: fetch what changes, play films over their timelines, label, and ask runs.

const token = document.querySelector('meta[name="studio-token"]').content;
const byId = (id) => document.getElementById(id);

function say(text, isProblem = false) {
  const place = byId("message");
  place.textContent = text;
  place.classList.toggle("problem", isProblem);
  clearTimeout(say.timer);
  if (text && !isProblem) say.timer = setTimeout(() => say(""), 4000);
}

/** Send JSON (or a file) to the studio; its answer as an object. Throws what the studio says went wrong. */
async function send(address, content, signal) {
  const isFile = content instanceof Blob;
  const answer = await fetch(address, {
    method: "POST",
    headers: { "x-studio-token": token, "content-type": isFile ? "application/octet-stream" : "application/json" },
    body: isFile ? content : JSON.stringify(content),
    signal,
  });
  return read(answer);
}

async function receive(address) {
  return read(await fetch(address, { headers: { accept: "application/json" } }));
}

async function read(answer) {
  const text = await answer.text();
  let found;
  try { found = JSON.parse(text); } catch { found = { error: text }; }
  if (!answer.ok) throw new Error(found.error || `the studio answered ${answer.status}`);
  return found;
}

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

// Parts of pages that change while a run trains, and parts that take a while.

function watch(place) {
  let seen = null, quiet = 0;
  const every = 1000 * Number(place.dataset.every || 2);
  async function look() {
    let wait = every;
    if (!document.hidden) {
      try {
        const answer = await fetch(place.dataset.live, { headers: seen ? { "if-none-match": seen } : {}, cache: "no-store" });
        if (answer.status === 200) {
          const isNew = seen !== null;
          seen = answer.headers.get("etag");
          const text = await answer.text();
          if (isNew) { place.innerHTML = text; quiet = 0; }
        } else { quiet += 1; }
        if (answer.status === 404) { location.reload(); return; }
      } catch { say("The studio does not answer: was it ended?", true); wait = 5000; }
    }
    setTimeout(look, Math.min(wait * (1 + quiet / 20), 5 * every));
  }
  look();
}

async function fill(place) {
  try {
    place.innerHTML = await (await fetch(place.dataset.later)).text();
  } catch { place.textContent = "The studio does not answer: was it ended?"; }
}

document.querySelectorAll("[data-live]").forEach(watch);
document.querySelectorAll("[data-later]").forEach(fill);
