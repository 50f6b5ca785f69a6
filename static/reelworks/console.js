"use strict";
// What the pages of the admin do beside Django's own scripts. Nothing is inline: the Content-Security-Policy allows none.

// <form data-once>: a second click sends nothing. <form data-confirm="…?">: the browser asks first.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) event.preventDefault();
  else if ("once" in form.dataset) form.querySelector("[type=submit]").disabled = true;
});

// data-follow="5": this part of the page is renewed every five seconds, until a new one has no such attribute. Nothing
// is swapped while text is selected, a part of it has the keyboard's focus, or the page is in the background.
function follow(box) {
  setTimeout(async () => {
    if (!document.hidden && String(getSelection()) === "" && !box.querySelector(":focus-visible")) {
      try {
        const answer = await fetch(location.href, { credentials: "same-origin" });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        box = swap(box, page.getElementById(box.id));
      } catch (error) { /* the server is away; the next turn asks again */ }
    }
    if (box.dataset.follow) follow(box);
  }, 1000 * box.dataset.follow);
}

// Where its tables were scrolled to and which details were open stays as it was.
function swap(box, next) {
  if (!next) return box;
  const places = [...box.querySelectorAll(".rw-scroll")].map((each) => each.scrollLeft);
  const open = [...box.querySelectorAll("details")].map((each) => each.open);
  next.querySelectorAll("details").forEach((each, place) => { if (place in open) each.open = open[place]; });
  box.replaceWith(next);
  next.querySelectorAll(".rw-scroll").forEach((each, place) => { each.scrollLeft = places[place] || 0; });
  return next;
}

document.querySelectorAll("[data-follow]").forEach(follow);
