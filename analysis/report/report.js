// Tables that sort by a click on a header, sections that open for a link into them and for print.
// Everything can be read without it.
"use strict";

const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";

// The number at the start of a cell, such as "−0.98 [−1, −0.9]" or "1.2×10⁻⁷"; null where it starts with none.
function leadingNumber(text) {
  const plain = text.trim().replace(/−/g, "-").replace(/^× /, "");
  const found = /^(-?\d+(?:\.\d+)?)(?:×10(⁻?)([⁰¹²³⁴⁵⁶⁷⁸⁹]+))?(?![\w.])/.exec(plain);
  if (!found) return null;
  const power = [...(found[3] ?? "")].map((digit) => RAISED.indexOf(digit)).join("");
  return Number(found[1]) * 10 ** Number((found[2] ? "-" : "") + (power || "0"));
}

function sortBy(table, column, head) {
  const falls = head.getAttribute("aria-sort") === "ascending";
  const rows = [...table.tBodies[0].rows].map((row) => [row.cells[column].textContent.trim(), row]);
  const isAbsent = ([text]) => text === "–" || text === "";
  const present = rows.filter((row) => !isAbsent(row));
  const numeric = present.every(([text]) => leadingNumber(text) !== null);
  const order = numeric ? ([a], [b]) => leadingNumber(a) - leadingNumber(b) : ([a], [b]) => a.localeCompare(b);
  present.sort((a, b) => (falls ? -order(a, b) : order(a, b)));
  table.tBodies[0].append(...[...present, ...rows.filter(isAbsent)].map(([, row]) => row));  // the absent stay last
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", falls ? "descending" : "ascending");
}

for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.tabIndex = 0;
    head.title = "Sort by this column";
    head.addEventListener("click", () => sortBy(table, column, head));
    head.addEventListener("keydown", (key) => {
      if (key.key === "Enter" || key.key === " ") {
        key.preventDefault();
        sortBy(table, column, head);
      }
    });
  });
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let place = target; place; place = place.parentElement) if (place.tagName === "DETAILS") place.open = true;
  target?.scrollIntoView();
}

addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
addEventListener("beforeprint", () => {
  for (const section of document.querySelectorAll("details.section")) section.open = true;
});
