"use strict";
// <input list="…" data-complete="/address?…">: its datalist is filled with what the address suggests for the text.
document.querySelectorAll("input[data-complete]").forEach((input) => {
  let asked = "", timer;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      const term = input.value.trim();
      if (!term || term === asked) return;
      asked = term;
      try {
        const answer = await fetch(`${input.dataset.complete}&term=${encodeURIComponent(term)}`, { credentials: "same-origin" });
        if (!answer.ok || input.value.trim() !== term) return;
        const { results } = await answer.json();
        input.list.replaceChildren(...results.map((each) => Object.assign(document.createElement("option"), { value: each.text })));
      } catch (error) { /* the server is away: the name can be typed in full */ }
    }, 200);
  });
});
// Empty fields of a form of filters stay out of the address.
document.querySelectorAll("form.rw-filters").forEach((form) => {
  form.addEventListener("submit", () => {
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
});
