// Follows the server: sections that changed are replaced, the rest keeps its place and focus.
"use strict";
const EVERY_MS = 2000, live = document.getElementById("live"), link = document.getElementById("link");
let tag = "";

function replaceChanged(html) {
  const next = new DOMParser().parseFromString(html, "text/html");
  for (const part of next.body.children) {
    const now = document.getElementById(part.id);
    if (!now) { live.append(document.adoptNode(part.cloneNode(true))); continue; }
    if (now.outerHTML === part.outerHTML) continue;
    const scrolled = [...now.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box === document.activeElement]);
    const fresh = document.adoptNode(part.cloneNode(true));
    now.replaceWith(fresh);
    fresh.querySelectorAll(".scroll").forEach((box, index) => {
      const [left, focused] = scrolled[index] || [0, false];
      box.scrollLeft = left;
      if (focused) box.focus({ preventScroll: true });
    });
  }
}

function say(text, isAlarm) {
  if (link.textContent !== text) link.textContent = text;
  link.classList.toggle("alarm-words", isAlarm);
}

async function follow() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/live", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        replaceChanged(await answer.text());
        tag = answer.headers.get("ETag") || "";
      } else if (answer.status !== 304) throw new Error(String(answer.status));
      say("Live: the page follows the server.", false);
    } catch {
      say("The server does not answer; what is shown is from before. The page goes on trying.", true);
    }
  }
  setTimeout(follow, EVERY_MS);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) tag = ""; });
setTimeout(follow, EVERY_MS);
