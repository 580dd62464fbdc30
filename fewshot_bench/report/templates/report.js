"use strict";
// Without this script the page is complete; with it, tables sort and rows can be filtered.

const tables = [...document.querySelectorAll("table.results")];
const NUMBER = /^[<\s]*([-+]?\d[\d.]*)/;

// The sort key of a cell: its first number, or its words. Cells without either come last.
function key(cell) {
  const text = cell.textContent.trim();
  if (cell.tagName === "TH" || cell.classList.contains("words")) return text.toLowerCase();
  const found = NUMBER.exec(text);
  return found ? Number(found[1]) : null;
}

function sort(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
  });
  body.append(...rows.map(([, row]) => row));
  [...table.tHead.rows[0].cells].forEach((head, at) =>
    head.setAttribute("aria-sort", at === column ? direction : "none"));
}

for (const table of tables) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    // Words are sorted from A, numbers from the highest.
    const sample = table.tBodies[0].rows[0]?.cells[column];
    const first = sample && typeof key(sample) === "string" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    button.addEventListener("click", () =>
      sort(table, column, head.getAttribute("aria-sort") === first ? other : first));
  });
}

const form = document.querySelector(".filter");
const field = document.getElementById("filter");
const shown = document.getElementById("shown");
const runs = [...document.querySelectorAll("details.run")];

// A row or run is shown if its name or settings contain every word.
function filter() {
  const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (text) => words.every((word) => text.toLowerCase().includes(word));
  let visible = 0;
  let all = 0;
  for (const table of tables) {
    for (const row of table.tBodies[0].rows) {
      const names = [...row.querySelectorAll("th, td.words")].map((cell) => cell.textContent);
      names.push(table.dataset.settings);
      row.hidden = !fits(names.join(" "));
      visible += !row.hidden;
      all += 1;
    }
  }
  for (const run of runs) run.hidden = !fits(run.querySelector("summary").textContent);
  shown.textContent = words.length ? `${visible} of ${all} rows` : "";
}

form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
field.addEventListener("input", filter);

// The URL of a picture is its content, which is in the page only once.
for (const caption of document.querySelectorAll("figcaption")) {
  const link = document.createElement("a");
  link.download = caption.dataset.file;
  link.href = caption.parentElement.querySelector("img").src;
  link.textContent = "Download as SVG";
  caption.append(" ", link);
}

// Paper cannot be clicked: folded sentences are printed; of runs, only the open ones.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open], .run)")];
  for (const one of folded) one.open = true;
});
window.addEventListener("afterprint", () => {
  for (const one of folded) one.open = false;
});
