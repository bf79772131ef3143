// Keeps the page as the server has it: sections that changed come as events, ready-made.
"use strict";

const FIRST_RETRY = 2000;
const LONGEST_RETRY = 60000;
const LONGEST_TAP = 400; // from the lifting of a finger to its click
let retry = FIRST_RETRY;
const pressing = new Set(); // pointers by their ids, and the key
const held = new Map();
let letting = 0; // the timer that runs from the release until what is held is shown

function clock() {
  // Times are told from now, in words; the exact one is in the title.
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const sizes = [["day", 86400], ["hour", 3600], ["minute", 60]];
  for (const time of document.querySelectorAll("time[datetime]")) {
    const moment = Date.parse(time.dateTime);
    if (Number.isNaN(moment)) continue;
    const seconds = (moment - Date.now()) / 1000;
    const [unit, size] = sizes.find(([, each]) => Math.abs(seconds) >= each) || ["second", 1];
    const text = unit === "second" ? "just now" : words.format(Math.round(seconds / size), unit);
    if (!time.title) time.title = time.textContent;
    if (time.textContent !== text) time.textContent = text;
  }
}

function carry(before, after) {
  // What the person has opened, typed or focused stays so.
  for (const old of before.querySelectorAll("details[id]")) {
    const now = after.querySelector(`details[id="${CSS.escape(old.id)}"]`);
    if (now) now.open = old.open;
  }
  for (const old of before.querySelectorAll("input[id], select[id], textarea[id]")) {
    const now = after.querySelector(`[id="${CSS.escape(old.id)}"]`);
    if (!now) continue;
    if (old.type === "checkbox") now.checked = old.checked;
    else if (old.tagName !== "SELECT" || [...now.options].some((each) => each.value === old.value)) now.value = old.value;
  }
}

function narrow(section) {
  // Shows only what was asked for in the section's filter, and says how much of it that is.
  const bar = section.querySelector(".filter");
  if (!bar) return;
  bar.hidden = false;
  const words = bar.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
  const show = bar.querySelector("select").value;
  let shown = 0, all = 0;
  for (const each of section.querySelectorAll("[data-tone]")) {
    const text = `${each.dataset.find || ""} ${each.textContent}`.toLowerCase();
    const tone = each.dataset.tone;
    const fits = !show || show === tone || (show === "troubled" && tone !== "good");
    each.hidden = !(fits && words.every((word) => text.includes(word)));
    all += 1;
    shown += each.hidden ? 0 : 1;
  }
  for (const some of section.querySelectorAll(".some")) some.hidden = !some.querySelector("[data-tone]:not([hidden])");
  const text = words.length || show ? `${shown} of ${all}` : "";
  const output = bar.querySelector("output");
  if (output.textContent !== text) output.textContent = text;
}

function narrowed(event) {
  const bar = event.target.closest(".filter");
  if (bar) narrow(bar.closest("section"));
}

function place(element, section) {
  // Finds the same element in another version of the section: by its name inside what bears an id around it.
  const around = element.closest("[id]");
  const label = (each) => each.getAttribute("aria-label") || each.name || each.textContent;
  const kin = (root) => [...root.querySelectorAll(element.tagName)];
  const inner = kin(around).indexOf(element);
  const same = kin(section).filter((each) => label(each) === label(element));
  const index = same.indexOf(element);
  return (after) => {
    if (around === section) return kin(after).filter((each) => label(each) === label(element))[index];
    const found = after.querySelector(`[id="${CSS.escape(around.id)}"]`);
    return found && (around === element ? found : kin(found)[inner]);
  };
}

function swap(html) {
  const after = new DOMParser().parseFromString(html, "text/html").querySelector("section[id]");
  const before = after && document.getElementById(after.id);
  if (!before) return;
  if (pressing.size || letting) {
    // What is replaced between press and release gets no click.
    held.set(after.id, html);
    return;
  }
  if (before.dataset.digest === after.dataset.digest) return;
  carry(before, after);
  const focused = before.contains(document.activeElement) ? document.activeElement : null;
  const find = focused && place(focused, before);
  const selection = focused && "selectionStart" in focused ? [focused.selectionStart, focused.selectionEnd] : null;
  narrow(after);
  const said = document.getElementById("headline")?.textContent;
  before.replaceWith(after);
  const now = document.getElementById("headline")?.textContent;
  if (said !== now) document.getElementById("told").textContent = now;
  const again = find && find(after);
  if (again) {
    again.focus({ preventScroll: true });
    if (selection && selection[0] !== null) again.setSelectionRange(...selection);
  }
  after.classList.add("changed");
  clock();
}

function press(event) {
  pressing.add(event.pointerId);
}

function release(event) {
  pressing.delete(event.pointerId);
  // The click of a mouse comes right after this, that of a finger in a while, or not at all.
  letGo(event.type === "pointerup" && event.pointerType !== "mouse" ? LONGEST_TAP : 0);
}

function letGo(wait) {
  clearTimeout(letting);
  letting = setTimeout(() => {
    letting = 0;
    if (pressing.size) return;
    const all = [...held.values()];
    held.clear();
    all.forEach(swap);
  }, wait);
}

function keyed(event) {
  // The space bar clicks once it is released.
  if (event.key !== " ") return;
  if (event.type === "keydown" && event.target.matches("button, summary, [type=checkbox]")) pressing.add(" ");
  else if (event.type === "keyup" && pressing.delete(" ")) letGo(0);
}

function tell(text, away) {
  const live = document.getElementById("live");
  live.hidden = false;
  live.textContent = text;
  live.classList.toggle("away", away);
}

function listen() {
  const stream = new EventSource("/page/stream");
  stream.addEventListener("open", () => {
    retry = FIRST_RETRY;
    tell("live", false);
  });
  stream.addEventListener("section", (event) => swap(JSON.parse(event.data)));
  stream.addEventListener("login", () => {
    stream.close();
    location.reload();
  });
  stream.addEventListener("error", () => {
    tell("reconnecting", true);
    if (stream.readyState !== EventSource.CLOSED) return;
    setTimeout(listen, retry * (0.5 + Math.random()));
    retry = Math.min(2 * retry, LONGEST_RETRY);
  });
}

document.addEventListener("input", narrowed);
addEventListener("pointerdown", press, true);
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, release, true);
addEventListener("click", () => letting && letGo(0), true);
// A release that nobody told of, as where a menu came in between.
addEventListener("pointermove", (event) => pressing.has(event.pointerId) && !event.buttons && release(event), true);
for (const type of ["keydown", "keyup"]) addEventListener(type, keyed, true);
addEventListener("blur", () => {
  pressing.clear();
  letGo(0);
});
document.querySelectorAll("section").forEach(narrow);
// Whoever has just pressed a button hears what came of it.
// Going to a section, as the address says, takes the focus away once everything is loaded: so after that.
addEventListener("load", () => setTimeout(() => {
  document.querySelector("main > .notice[tabindex]")?.focus({ preventScroll: true });
}, 50));
clock();
setInterval(clock, 20000);
listen();
