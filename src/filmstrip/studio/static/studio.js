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
          const isNew = seen !== null || place.childNodes.length === 0;
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

// A film over its timeline.

const seconds = (t) => `${Math.floor(t / 60)}:${(t % 60).toFixed(1).padStart(4, "0")}`;
const isTyping = (event) => event.target.closest("input, select, textarea") !== null;
/** Whether a key is for what has the focus: buttons and links take the space bar, the film's own controls the arrows. */
const isTaken = (event) => event.target.closest(event.key === " " ? "button, a, summary, video" : "video") !== null;

class Player {
  constructor(place) {
    this.place = place;
    this.video = place.querySelector("video");
    this.canvas = place.querySelector("canvas");
    this.timeline = place.querySelector(".timeline");
    this.under = place.querySelector(".under");
    this.colours = new Map();
    this.layers = [];
    this.length = 0;
    this.fps = 25;
    this.rows = JSON.parse(place.dataset.rows || "[]");
    this.opened = this.open();
  }

  async open() {
    const opening = this.place.querySelector(".opening");
    const patience = setTimeout(() => { opening.textContent = "Converting the film for the browser, once; a long one takes a while ..."; }, 1500);
    try {
      const ready = await receive(this.place.dataset.ready);
      this.length = ready.seconds || 1 / ready.fps;
      this.fps = ready.fps || 25;
      this.video.parentElement.style.setProperty("--aspect", ready.aspect);
      this.under.textContent = ready.said;
      this.video.src = ready.source;
      this.video.loop = this.length < 10;
      opening.remove();
    } catch (error) {
      opening.textContent = `This film cannot be shown: ${error.message}`;
      opening.classList.add("problem");
    }
    clearTimeout(patience);
    const start = Number(this.place.dataset.from || 0);
    if (start) this.video.addEventListener("loadedmetadata", () => this.seek(start), { once: true });
    this.draw();
    const tick = () => { this.follow(); requestAnimationFrame(tick); };
    tick();
    this.timeline.addEventListener("click", (event) => {
      const track = event.target.closest(".track");
      if (track && event.target === track) {
        const box = track.getBoundingClientRect();
        this.seek((event.clientX - box.left) / box.width * this.length);
      }
    });
    document.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (isTyping(event) || isTaken(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) this.seek(this.now + step * (event.shiftKey ? 1 : 1 / this.fps));
    else if (event.key === " ") { if (this.video.paused) this.video.play(); else this.video.pause(); } else return;
    event.preventDefault();
  }

  get now() { return this.video.currentTime; }

  seek(time) { this.video.currentTime = Math.max(0, Math.min(this.length - 0.001, time)); }

  colour(label) {
    if (!this.colours.has(label)) this.colours.set(label, this.colours.size % 6);
    return `s${this.colours.get(label)}`;
  }

  /** Show an answer of a run as rows and boxes; returns a function that takes them away again. */
  add(name, answer) {
    const layer = { rows: (answer.rows || []).map((row) => ({ ...row, name: `${name}: ${row.name}` })), boxes: answer.boxes || [], moves: answer.moves };
    this.layers.push(layer);
    this.draw();
    return () => { this.layers = this.layers.filter((each) => each !== layer); this.draw(); };
  }

  draw() {
    const rows = [...this.rows, ...this.layers.flatMap((layer) => layer.rows)];
    this.timeline.replaceChildren(...rows.map((row) => element("div", { class: "row" },
      element("span", { class: "name" }, row.name),
      element("div", { class: "track" }, ...row.spans.map((span) => this.span(span)), element("span", { class: "head" })))),
      element("div", { class: "row scale" }, element("span", { class: "name" }, ""), element("div", { class: "track" }, ...this.ticks(), element("span", { class: "head" }))));
  }

  ticks() {
    const rough = this.length / 6 || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((f) => f * power).find((s) => s >= rough) || rough;
    const found = [];
    for (let t = 0; t <= this.length + 1e-9; t += step) found.push(element("span", { class: "tick", style: `left:${100 * t / this.length}%` }, `${+t.toFixed(3)} s`));
    return found;
  }

  span(span) {
    const end = span.end ?? this.length;
    const left = Math.min(0.996, Math.max(0, span.start / this.length)), width = Math.max(0.004, Math.min(1, end / this.length) - left);
    const score = span.score === undefined || span.score === null ? "" : ` ${Math.round(100 * span.score)}%`;
    const sign = span.right === true ? "✓ " : span.right === false ? "✗ " : "";
    const said = `${sign}${span.label}${score}, ${span.start.toFixed(1)} to ${end.toFixed(1)} s${span.detail ? `: ${span.detail}` : ""}`;
    const strength = span.score === undefined || span.score === null ? 0.45 : 0.12 + 0.5 * span.score;
    return element("button", {
      type: "button", class: `span ${this.colour(span.label)}`, title: said, "aria-label": said, "data-start": span.start, "data-end": end,
      style: `left:${100 * left}%;width:${100 * width}%;--strength:${strength}`,
      onclick: () => { this.seek(span.start); this.under.textContent = said; },
    }, `${sign}${span.label}`, element("small", {}, score));
  }

  follow() {
    const now = this.now;
    const share = `${100 * Math.min(1, now / (this.length || 1))}%`;
    for (const head of this.timeline.querySelectorAll(".head")) head.style.left = share;
    for (const span of this.timeline.querySelectorAll(".span")) span.classList.toggle("now", now >= span.dataset.start - 1e-3 && now < span.dataset.end);
    this.boxes(now);
  }

  boxes(now) {
    const { canvas, video } = this, scale = devicePixelRatio || 1;
    const width = Math.round(video.clientWidth * scale), height = Math.round(video.clientHeight * scale);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    const pen = canvas.getContext("2d");
    pen.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    pen.lineWidth = 2.5 * scale;
    pen.font = `600 ${13 * scale}px system-ui, sans-serif`;
    for (const layer of this.layers) {
      for (const box of layer.moves ? moving(layer.boxes, now) : layer.boxes.filter((each) => now >= each.start && now < each.end)) {
        const [l, t, r, b] = box.box, colour = style.getPropertyValue(`--s${(box.track - 1) % 6}`);
        pen.strokeStyle = pen.fillStyle = colour;
        pen.strokeRect(l * width, t * height, (r - l) * width, (b - t) * height);
        const wide = pen.measureText(box.text).width + 8 * scale, high = 18 * scale;
        const x = Math.max(0, Math.min(l * width, width - wide)), y = t * height >= high ? t * height - high : Math.min(b * height, height - high);
        pen.fillRect(x, y, wide, high);
        pen.fillStyle = style.getPropertyValue("--paper");
        pen.fillText(box.text, x + 4 * scale, y + 13.5 * scale);
      }
    }
  }
}

/** The boxes of tracks at a time, between key frames by linear interpolation. */
function moving(boxes, now) {
  const tracks = Map.groupBy ? Map.groupBy(boxes, (box) => box.track) : boxes.reduce((m, b) => m.set(b.track, [...(m.get(b.track) || []), b]), new Map());
  const found = [];
  for (const keys of tracks.values()) {
    const middle = (key) => (key.start + key.end) / 2;
    const near = keys.filter((key) => now >= key.start - 1e-6 && now < key.end).sort((a, b) => Math.abs(middle(a) - now) - Math.abs(middle(b) - now))[0];
    if (!near) continue;
    const other = keys[keys.indexOf(near) + (now >= middle(near) ? 1 : -1)];
    const share = other ? Math.abs(now - middle(near)) / Math.abs(middle(other) - middle(near)) : 0;
    found.push({ ...near, box: near.box.map((side, i) => (share < 1 && other ? side + share * (other.box[i] - side) : side)) });
  }
  return found;
}

// Asking runs about the film.

class Asker {
  constructor(player) {
    this.player = player;
    this.film = JSON.parse(player.place.dataset.film);
    this.forms = byId("asks");
    this.answers = byId("answers");
    const chosen = byId("ask-run");
    if (!this.forms || !chosen) return;
    chosen.addEventListener("change", () => this.show(chosen.value));
    this.forms.addEventListener("submit", (event) => { event.preventDefault(); this.ask(event.target); });
    this.begin(chosen.value);
  }

  async begin(chosen) {
    await this.player.opened;
    const runs = JSON.parse(this.forms.dataset.runs);
    for (const run of runs.slice(1)) await this.show(run, true);
    await this.show(chosen, runs.includes(chosen));
  }

  async show(run, isAsked = false) {
    const turn = this.turn = (this.turn || 0) + 1;
    this.forms.replaceChildren(element("p", { class: "note" }, "Looking what this run can be asked ..."));
    const text = await (await fetch(`/ask/form?${new URLSearchParams({ run })}`)).text();
    if (turn !== this.turn) return;  // another run was chosen meanwhile
    this.forms.innerHTML = text;
    const first = this.forms.querySelector('form[data-what="classify"], form[data-what="anticipate"], form[data-what="forecast"], form[data-what="detect"]');
    if (isAsked && first) this.ask(first);
  }

  async ask(form) {
    const { run, what } = form.dataset, options = Object.fromEntries(new FormData(form));
    const said = element("span", {}, "waiting ...");
    const stop = element("button", { type: "button", class: "quiet" }, "Stop");
    const place = element("article", { class: "answer" }, element("h3", {}, `${run}: ${form.querySelector("h3").textContent}`), element("p", { class: "note" }, said, " ", stop));
    this.answers.prepend(place);
    try {
      const { key } = await send("/ask", { run, what, options, film: this.film });
      stop.addEventListener("click", () => send("/ask/stop", { key }).catch((error) => say(error.message, true)));
      const begun = Date.now();
      for (;;) {
        const found = await receive(`/answer?${new URLSearchParams({ key })}`);
        if (found.state === "done") { this.put(place, run, found); return; }
        if (found.state === "failed" || found.state === "stopped") throw new Error(found.why || found.state);
        said.textContent = `${found.state}, ${Math.round((Date.now() - begun) / 1000)} s ...`;
        await new Promise((resolve) => setTimeout(resolve, 700));
      }
    } catch (error) {
      place.replaceChildren(place.firstChild, element("p", { class: "problem" }, error.message), this.closer(place, () => {}));
    }
  }

  closer(place, undo) {
    return element("button", { type: "button", class: "quiet", onclick: () => { undo(); place.remove(); } }, "Remove");
  }

  put(place, run, found) {
    const { answer } = found, undo = this.player.add(run, answer);
    const parts = [];
    if (answer.top) {
      parts.push(element("ol", { class: "top" }, ...answer.top.map(([name, share]) => element("li", {},
        element("span", { class: "name" }, name), element("span", { class: "share" }, `${Math.round(100 * share)}%`),
        element("span", { class: "bar", style: `--share:${share}` })))));
    }
    if (answer.text) parts.push(element("p", { class: "said" }, answer.text));
    if (answer.clips) {
      parts.push(element("div", { class: "made" }, ...answer.clips.map((clip) => element("figure", {},
        element("video", { src: clip.source, controls: true, loop: true, muted: true, autoplay: !matchMedia("(prefers-reduced-motion: reduce)").matches, playsinline: true, "aria-label": clip.caption }),
        element("figcaption", { class: "note" }, clip.caption)))));
    }
    if (answer.rows && answer.rows.length) parts.push(element("p", { class: "note" }, "Shown on the timeline", answer.boxes ? " and as boxes in the film." : "."));
    const commands = element("details", {}, element("summary", {}, "The command"), ...found.commands.map((line) => element("pre", {}, line)));
    place.replaceChildren(place.firstChild, ...parts, commands, this.closer(place, undo));
  }
}

// Labelling segments of a film.

class Labeller {
  constructor(place, player) {
    this.place = place;
    this.player = player;
    this.name = place.dataset.video;
    this.seen = place.dataset.seen;
    this.segments = JSON.parse(place.dataset.segments).map((each) => ({ start: Number(each.start), end: Number(each.end), label: each.label }));
    this.classes = JSON.parse(place.dataset.classes);
    this.past = [];
    this.start = null;
    this.input = byId("label");
    this.saved = place.querySelector(".saved");
    this.key = `filmstrip unsaved ${this.name}`;
    if (this.classes.length) this.input.value = this.classes[0];
    place.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    place.addEventListener("click", (event) => {
      const what = event.target.dataset.do;
      if (what === "start") this.mark();
      else if (what === "end") this.end();
      else if (what === "undo") this.undo();
    });
    document.addEventListener("keydown", (event) => this.press(event));
    player.opened.then(() => this.recover());
  }

  /** Changes that could not be saved before the page was left. */
  recover() {
    const kept = localStorage.getItem(this.key);
    if (kept) {
      const { seen, segments } = JSON.parse(kept);
      if (seen === this.seen) { this.segments = segments; this.save(); } else localStorage.removeItem(this.key);
    }
    this.draw();
  }

  press(event) {
    if (isTyping(event) || event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "i") this.mark();
    else if (key === "o") this.end();
    else if (key === "z") this.undo();
    else if (key === "delete" || key === "backspace") this.remove(this.under());
    else if (/^[1-9]$/.test(key)) this.choose(this.classes[Number(key) - 1]);
    else return;
    event.preventDefault();
  }

  /** The index of the segment under the head, the last one of several. */
  under() {
    const now = this.player.now;
    return this.segments.findLastIndex((each) => now >= each.start - 1e-3 && now <= each.end + 1e-3);
  }

  mark() { this.start = this.player.now; this.player.video.play(); this.tell(`Segment from ${seconds(this.start)}: mark its end with O`); this.draw(); }

  end() {
    const now = this.player.now, label = this.input.value.trim();
    if (this.start === null) { this.tell("Mark the start first (I)", true); return; }
    this.player.video.pause();
    if (!label) { this.tell("Type a class, then mark the end (O)", true); this.input.focus(); return; }
    // The segment ends where the next one may begin: before the frame at the head, but for the film's last one.
    const frame = 1 / this.player.fps, { length } = this.player;
    let [start, end] = now >= this.start ? [this.start, now] : [now, this.start];
    if (end > length - 1.5 * frame || end - start < frame) end = Math.min(length, Math.max(end, start) + frame);
    this.start = null;
    this.change([...this.segments, { start, end, label }]);
  }

  choose(label) {
    if (!label) return;
    this.input.value = label;
    const under = this.under();
    if (this.start === null && under >= 0 && this.segments[under].label !== label) {
      this.change(this.segments.map((each, i) => (i === under ? { ...each, label } : each)));
    } else this.draw();
  }

  remove(index) { if (index >= 0) this.change(this.segments.filter((each, i) => i !== index)); }

  undo() {
    if (this.start !== null) { this.start = null; this.draw(); return; }
    const before = this.past.pop();
    if (before) this.change(before, true); else this.tell("Nothing to undo");
  }

  change(segments, isUndone = false) {
    if (!isUndone) this.past.push(this.segments);
    this.segments = segments.map((each) => ({ ...each, start: Math.round(1000 * each.start) / 1000, end: Math.round(1000 * each.end) / 1000 })).sort((a, b) => a.start - b.start);
    localStorage.setItem(this.key, JSON.stringify({ seen: this.seen, segments: this.segments }));
    this.draw();
    this.save();
  }

  /** Save, one request after another; until it is saved the browser keeps the segments. */
  async save() {
    if (this.isSaving) { this.isStale = true; return; }
    this.isSaving = true;
    this.tell("Saving ...");
    const segments = this.segments;
    try {
      const answer = await send("/label/save", { video: this.name, segments, seen: this.seen });
      this.seen = answer.seen;
      if (segments === this.segments) localStorage.removeItem(this.key);
      else localStorage.setItem(this.key, JSON.stringify({ seen: this.seen, segments: this.segments }));
      for (const name of Object.keys(answer.counts)) if (!this.classes.includes(name)) this.classes.push(name);
      const counts = Object.entries(answer.counts).map(([name, count]) => `${name} ${count}`).join(", ") || "none yet";
      byId("counts").textContent = `Segments of each class: ${counts}.`;
      this.tell(`Saved: ${segments.length} segment${segments.length === 1 ? "" : "s"} of this film.`);
      this.draw();
    } catch (error) {
      this.tell(`Not saved: ${error.message}`, true);
      if (error instanceof TypeError) setTimeout(() => this.save(), 3000);  // no answer: the browser keeps them, and tries again
    }
    this.isSaving = false;
    if (this.isStale) { this.isStale = false; this.save(); }
  }

  tell(text, isProblem = false) { this.saved.textContent = text; this.saved.classList.toggle("problem", isProblem); }

  draw() {
    const { player } = this;
    player.rows = [{ name: "segments", spans: this.segments.map((each) => ({ ...each })) }];
    if (this.start !== null) player.rows.push({ name: "new", spans: [{ start: this.start, end: this.start + 1 / player.fps, label: this.input.value || "?" }] });
    player.draw();
    this.place.querySelector(".classes").replaceChildren(...this.classes.slice(0, 9).map((name, i) => element("button", {
      type: "button", class: `class ${player.colour(name)}`, "aria-pressed": String(name === this.input.value), onclick: () => this.choose(name),
    }, element("kbd", {}, String(i + 1)), ` ${name}`)));
    byId("labels").replaceChildren(...this.classes.map((name) => element("option", { value: name })));
    const rows = this.segments.map((each, i) => element("tr", {},
      element("td", {}, this.number(i, "start")), element("td", {}, this.number(i, "end")),
      element("td", {}, this.text(i)),
      element("td", {}, element("button", { type: "button", class: "quiet", "aria-label": `Go to segment ${i + 1}`, onclick: () => player.seek(each.start) }, "Go to"), " ",
        element("button", { type: "button", class: "quiet", "aria-label": `Remove segment ${i + 1}`, onclick: () => this.remove(i) }, "Remove"))));
    const head = element("thead", {}, element("tr", {}, ...["start (s)", "end (s)", "class", ""].map((name) => element("th", { scope: "col" }, name))));
    this.place.querySelector(".segments").replaceChildren(rows.length ? element("table", {}, head, element("tbody", {}, ...rows)) : element("p", { class: "note" }, "No segments yet: play, press I at the start and O at the end of what you see."));
  }

  edited(index, name, value) { this.change(this.segments.map((each, i) => (i === index ? { ...each, [name]: value } : each))); }

  number(index, name) {
    return element("input", {
      type: "number", step: "0.01", min: 0, value: this.segments[index][name], "aria-label": `${name} of segment ${index + 1}`,
      onchange: (event) => { if (event.target.value !== "") this.edited(index, name, Number(event.target.value)); },
    });
  }

  text(index) {
    return element("input", {
      type: "text", list: "labels", value: this.segments[index].label, "aria-label": `class of segment ${index + 1}`,
      onchange: (event) => { if (event.target.value.trim()) this.edited(index, "label", event.target.value.trim()); },
    });
  }
}

// Trainings and uploads.

document.addEventListener("click", async (event) => {
  const { stop, remove } = event.target.dataset;
  try {
    if (stop) { event.target.disabled = true; await send("/train/stop", { name: stop }); say("It finishes its step, saves and stops."); }
    if (remove) { await send("/upload/remove", { upload: remove }); event.target.closest("li").remove(); }
  } catch (error) { say(error.message, true); }
});

const training = byId("train");
if (training) {
  training.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = training.querySelector("button");
    button.disabled = true;
    try {
      const { name } = await send("/train", Object.fromEntries(new FormData(training)));
      say(`The training of ${name} begins.`);
    } catch (error) { say(error.message, true); }
    button.disabled = false;
  });
}

const upload = byId("upload");
if (upload) {
  const bar = upload.querySelector("progress");
  const give = (file) => {
    if (!file) return;
    say("");
    const request = new XMLHttpRequest();  // which tells how far it is
    request.open("POST", `/upload?${new URLSearchParams({ name: file.name })}`);
    request.setRequestHeader("x-studio-token", token);
    bar.hidden = false;
    request.upload.addEventListener("progress", (event) => { if (event.lengthComputable) bar.value = event.loaded / event.total; });
    request.addEventListener("load", () => {
      bar.hidden = true;
      let found = {};
      try { found = JSON.parse(request.responseText); } catch { found = { error: request.responseText }; }
      if (request.status === 200) location.href = found.page; else say(found.error, true);
    });
    request.addEventListener("error", () => { bar.hidden = true; say("The upload was interrupted: is the film too large, or the studio ended?", true); });
    request.send(file);
  };
  byId("film").addEventListener("change", (event) => give(event.target.files[0]));
  upload.addEventListener("dragover", (event) => { event.preventDefault(); upload.classList.add("over"); });
  upload.addEventListener("dragleave", () => upload.classList.remove("over"));
  upload.addEventListener("drop", (event) => { event.preventDefault(); upload.classList.remove("over"); give(event.dataTransfer.files[0]); });
}

// Judging pairs of films.

const ballot = byId("vote");
if (ballot) {
  const films = [...document.querySelectorAll(".pair video")];
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  /** Play all films from their beginning, together; those that end wait for the longest. */
  const again = () => { for (const film of films) { film.currentTime = 0; film.play().catch(() => {}); } };
  const ready = films.map((film) => new Promise((resolve) => { if (film.readyState >= 3 || film.error) resolve(); else { film.addEventListener("canplay", resolve, { once: true }); film.addEventListener("error", resolve, { once: true }); } }));
  const ended = () => { if (films.every((film) => film.ended || film.error)) setTimeout(again, 400); };
  if (!isCalm) {
    films.forEach((film) => film.addEventListener("ended", ended));
    Promise.all(ready).then(again);
  }
  byId("again").addEventListener("click", again);
  ballot.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = ballot.querySelector("button");
    button.disabled = true;
    try {
      const answers = Object.fromEntries(new FormData(ballot));
      const { next } = await send("/vote", { judge: ballot.dataset.judge, pair: ballot.dataset.pair, ...answers });
      location.href = next;
    } catch (error) { say(`Not kept, try again: ${error.message}`, true); button.disabled = false; }
  });
}

for (const place of document.querySelectorAll(".player")) {
  place.player = new Player(place);
  if (byId("asks")) new Asker(place.player);
  if (byId("labeller")) new Labeller(byId("labeller"), place.player);
}
