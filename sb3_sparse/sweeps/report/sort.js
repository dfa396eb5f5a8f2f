"use strict";
// Sorts the rows of a table by the column whose heading is clicked, and the other way round with the next click.
// Entries have their value in data-value. Those without one are missing, and come last either way.

function readValue(text) {
  if (text === undefined || text === "") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}

function compareValues(first, second, direction) {
  if (first === null || second === null) return (first === null) - (second === null);
  if (typeof first !== typeof second) return typeof first === "number" ? -direction : direction;
  if (typeof first === "string") return direction * first.localeCompare(second, "en");
  return direction * (first - second);
}

// Array.sort keeps the order of equal rows.
function sortRows(rows, column, direction, read) {
  return [...rows].sort((a, b) => compareValues(read(a, column), read(b, column), direction));
}

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  const read = (row, column) => readValue(row.cells[column].dataset.value);
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const direction = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
      const body = table.tBodies[0];
      body.append(...sortRows(body.rows, column, direction, read));
    });
  });
}

if (typeof document === "undefined") {
  module.exports = { readValue, compareValues, sortRows };
} else {
  document.querySelectorAll("table").forEach(makeSortable);
}
