"use strict";
// What the pages of the admin do beside Django's own scripts. Nothing is inline: the Content-Security-Policy allows none.

// <form data-once>: a second click sends nothing. <form data-confirm="…?">: the browser asks first.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) event.preventDefault();
  else if ("once" in form.dataset) form.querySelector("[type=submit]").disabled = true;
});

// <button data-copy="id">: the text of that element into the clipboard; where there is none (plain http), it is selected.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy), said = button.parentElement.querySelector("[data-copied]");
  try {
    await navigator.clipboard.writeText(text.textContent);
    said.textContent = "Copied.";
  } catch (error) {
    getSelection().selectAllChildren(text);
    said.textContent = "Selected: copy it with the keyboard.";
  }
});

// data-follow="5": this part of the page is renewed every five seconds, until a new one has no such attribute. Nothing is
// asked for while the page is in the background; it is renewed at once when it comes back. Nothing is swapped while text
// is selected or somebody fills in a field.
function follow(box) {
  const every = 1000 * box.dataset.follow;
  let asked = Date.now();
  const turn = async () => {
    if (!document.hidden && Date.now() - asked >= every && !isBusy(box)) {
      asked = Date.now();
      try {
        const answer = await fetch(location.href, { credentials: "same-origin" });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        if (!document.hidden && !isBusy(box)) box = swap(box, page.getElementById(box.id));
      } catch (error) { /* the server is away; the next turn asks again */ }
    }
    if (!box.dataset.follow) {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", turn);
    }
  };
  const timer = setInterval(turn, every / 2);
  document.addEventListener("visibilitychange", turn);
}

function isBusy(box) {
  const at = document.activeElement;
  return String(getSelection()) !== "" || (box.contains(at) && at.matches("input, select, textarea"));
}

// Where the page and its tables were scrolled to, which details were open and what has the focus stays as it was.
function swap(box, next) {
  if (!next) return box;
  const at = box.contains(document.activeElement) && document.activeElement !== box ? document.activeElement : null;
  const focused = at && place(box, at);
  const page = [scrollX, scrollY];
  const open = new Map([...box.querySelectorAll("details")].map((each) => [place(box, each), each.open]));
  const tables = new Map([...box.querySelectorAll(".rw-scroll")].map((each) => [place(box, each), [each.scrollLeft, each.scrollTop]]));
  next.querySelectorAll("details").forEach((each) => { each.open = open.get(place(next, each)) ?? each.open; });
  box.replaceWith(next);
  reachable(next);
  next.querySelectorAll(".rw-scroll").forEach((each) => {
    [each.scrollLeft, each.scrollTop] = tables.get(place(next, each)) || [0, 0];
  });
  if (focused) {
    const again = [...next.querySelectorAll(at.localName)].find((each) => place(next, each) === focused);
    if (again) again.focus({ preventScroll: true });
  }
  scrollTo(...page);
  return next;
}

// What tells an element from the others, though rows come and go around it: its own name or its details' name, else its
// address, else its words; and which of those with the same it is.
function place(box, element) {
  const names = (each) => {
    const details = each.closest("[data-key]");
    const own = each.id || each.dataset.key || each.getAttribute("href") || (each.matches("button") ? each.textContent.trim() : "");
    return [each.localName, details ? details.dataset.key : "", own].join("|");
  };
  const name = names(element);
  const same = [...box.querySelectorAll(element.localName)].filter((each) => names(each) === name);
  return `${name}|${same.indexOf(element)}`;
}

// A table that is wider than the page can be scrolled by keyboard, and says what it is.
function reachable(part) {
  part.querySelectorAll(".rw-scroll, #changelist .overflow-x-auto").forEach((each) => {
    if (each.scrollWidth <= each.clientWidth && each.scrollHeight <= each.clientHeight) return;
    each.tabIndex = 0;
    each.setAttribute("role", "region");
    if (!each.hasAttribute("aria-label")) each.setAttribute("aria-label", heading(each));
  });
}

// The words of the heading or summary that stands before an element.
function heading(element) {
  const all = [...document.querySelectorAll("h1, h2, h3, figcaption, summary")];
  const before = all.filter((each) => each.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING);
  return before.length ? before[before.length - 1].textContent.trim().replace(/\s+/g, " ").slice(0, 80) : "Table";
}

document.querySelectorAll("[data-follow]").forEach(follow);
addEventListener("load", () => reachable(document));
addEventListener("resize", () => reachable(document));
document.addEventListener("toggle", (event) => reachable(event.target), true);

// The list's filters lie over the page: the keyboard goes in with them, and comes back when they close.
document.addEventListener("click", (event) => {
  const button = event.target.closest("[aria-controls=changelist-filter]");
  if (!button) return;
  const panel = document.getElementById("changelist-filter");
  new MutationObserver((changes, observer) => {
    const open = getComputedStyle(panel).display !== "none";
    button.setAttribute("aria-expanded", String(open));
    if (open) (panel.querySelector("a[href], input, select") || panel).focus();
    else { observer.disconnect(); button.focus(); }
  }).observe(panel, { attributes: true, attributeFilter: ["style"] });
});

// What Django's and unfold's own scripts draw without a role or a name.
addEventListener("load", () => {
  document.querySelectorAll(".help-tooltip[aria-label]").forEach((each) => each.setAttribute("role", "img"));
});
