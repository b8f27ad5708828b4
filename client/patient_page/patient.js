// Fades the heat maps of a patient's radiographs.
(() => {
  "use strict";
  document.querySelectorAll("input[data-fades]").forEach((slider) => {
    const heat = document.querySelector(`#${slider.dataset.fades} .heat`);
    const told = slider.parentElement.querySelector("output");
    const fade = () => {
      heat.style.opacity = String(slider.valueAsNumber / 100);
      told.textContent = `${slider.value}%`;
      slider.setAttribute("aria-valuetext", `${slider.value}%`);
    };
    slider.addEventListener("input", fade);
    fade();
    slider.parentElement.hidden = false;
  });
})();

// Sorts and filters the list of patients.
(() => {
  "use strict";
  const table = document.querySelector("table.patients");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const tools = document.getElementById("list-tools");
  const byId = document.getElementById("filter-id");
  const byPart = document.getElementById("filter-part");
  const told = tools.querySelector("[role=status]");
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;

  const filter = () => {
    const wanted = byId.value.trim().toLowerCase();
    rows.forEach((row) => {
      const hasId = row.cells[0].dataset.value.toLowerCase().includes(wanted);
      row.hidden = !hasId || (byPart.value !== "" && row.dataset.part !== byPart.value);
    });
    const shown = rows.filter((row) => !row.hidden).length;
    told.textContent = tools.dataset.shown.replace("{n}", shown).replace("{of}", rows.length);
  };

  const sort = (heading, column) => {
    const isDescending = heading.ariaSort === "ascending";
    const value = (row) => row.cells[column].dataset.value;
    const isNumber = rows.every((row) => value(row) !== "" && Number.isFinite(Number(value(row))));
    const order = isNumber ? (a, b) => Number(value(a)) - Number(value(b)) : (a, b) => compare(value(a), value(b));
    rows.sort((a, b) => (isDescending ? order(b, a) : order(a, b)));
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
    heading.ariaSort = isDescending ? "descending" : "ascending";
  };

  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(heading, column));
    heading.replaceChildren(button);
  });
  byId.addEventListener("input", filter);
  byPart.addEventListener("change", filter);
  body.addEventListener("click", (event) => {
    if (event.target.closest("a")) told.textContent = tools.dataset.making;
  });
  addEventListener("pageshow", filter);
  tools.hidden = false;
})();
