"use strict";
const filter = document.querySelector(".filter"), rows = [...document.querySelectorAll(".rows details")];
if (filter) {
  const [status, words] = filter.querySelectorAll("select, input"), found = filter.querySelector("output");
  const show = () => {
    const wanted = words.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = (status.value && row.dataset.status !== status.value) || !row.textContent.toLowerCase().includes(wanted);
      shown += !row.hidden;
    }
    found.value = shown + " of " + rows.length;
  };
  filter.hidden = false;
  filter.addEventListener("input", show);
  show();
}
