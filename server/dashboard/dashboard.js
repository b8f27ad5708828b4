// Sorts and filters the list, and puts what the server tells into the page without losing where its reader is.
(() => {
  "use strict";
  const table = document.getElementById("runs");
  const live = document.getElementById("live");

  const filter = () => {
    const text = document.getElementById("filter").value.trim().toLowerCase();
    const state = document.getElementById("state").value;
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row) => {
      const found = `${row.dataset.keyName} ${row.dataset.keyStudy}`.includes(text);
      row.hidden = !(found && (!state || row.dataset.state === state));
    });
    const shown = document.getElementById("shown");
    const count = rows.filter((row) => !row.hidden).length;
    shown.textContent = shown.dataset.text.replace("{shown}", count).replace("{n}", rows.length);
    document.getElementById("no-runs").hidden = rows.length > 0;
  };

  const sort = () => {
    const heading = table.querySelector("[aria-sort]");
    const key = heading.querySelector("button").dataset.sort;
    const name = `key${key[0].toUpperCase()}${key.slice(1)}`;
    const direction = heading.getAttribute("aria-sort") === "ascending" ? 1 : -1;
    const isNumber = ["hospitals", "auc", "changed"].includes(key);
    const order = (a, b) => (isNumber ? a.dataset[name] - b.dataset[name] : a.dataset[name].localeCompare(b.dataset[name]));
    const rows = [...table.tBodies[0].rows];
    const sorted = [...rows].sort((a, b) => direction * order(a, b));
    if (sorted.some((row, i) => row !== rows[i])) table.tBodies[0].append(...sorted);
  };

  const limit = () => {
    const form = document.getElementById("runs-form");
    const chosen = form.querySelectorAll("input[name=run]:checked").length;
    document.getElementById("compare").disabled = chosen < 2 || chosen > Number(form.dataset.most);
  };

  if (table) {
    table.tHead.addEventListener("click", (event) => {
      const heading = event.target.closest("button[data-sort]")?.closest("th");
      if (!heading) return;
      const next = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      table.querySelectorAll("[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", next);
      sort();
    });
    table.addEventListener("change", limit);
    document.getElementById("filter").addEventListener("input", filter);
    document.getElementById("state").addEventListener("change", filter);
    filter();
    limit();
  }

  const parse = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    template.content.querySelectorAll(".table-part > .actions").forEach((actions) => { actions.hidden = false; });
    return template.content.firstElementChild;
  };

  const FOCUSABLE = "a, button, input, summary, [tabindex]";
  const replace = (former, fresh) => {
    const folded = former.querySelectorAll("details");
    fresh.querySelectorAll("details").forEach((one, i) => { one.open = folded[i]?.open ?? false; });
    const boxes = former.querySelectorAll("input[type=checkbox]");
    fresh.querySelectorAll("input[type=checkbox]").forEach((box, i) => { box.checked = boxes[i]?.checked ?? false; });
    if (former.isEqualNode(fresh)) return;
    const focused = [...former.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement);
    const scrolled = [...former.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
    former.replaceWith(fresh);
    fresh.querySelectorAll(".scroll").forEach((one, i) => { [one.scrollLeft, one.scrollTop] = scrolled[i] ?? [0, 0]; });
    if (focused >= 0) fresh.querySelectorAll(FOCUSABLE)[focused]?.focus({ preventScroll: true });
  };

  const redraw = (text) => {
    const figure = JSON.parse(text);
    const holder = document.querySelector(`[data-figure="${CSS.escape(figure.name)}"]`);
    if (!holder) return;
    holder.setAttribute("aria-label", figure.alt);
    const part = holder.closest("figure").querySelector("details .table-part");
    replace(part, parse(figure.table));
    document.dispatchEvent(new CustomEvent("figure", { detail: figure }));
  };

  const put = (id, text) => {
    if (id.startsWith("figure:")) {
      if (text) redraw(text);
      return;
    }
    const former = document.getElementById(id);
    if (!text) {
      if (table) former?.remove();
      return;
    }
    const fresh = parse(text);
    if (former) {
      if (table) fresh.hidden = former.hidden;
      replace(former, fresh);
    } else if (table) table.tBodies[0].append(fresh);
  };

  if (live) {
    const events = new EventSource(live.dataset.events);
    const first = () => document.getElementById("first")?.dataset.goingOn;
    const before = first();
    events.onopen = () => { live.textContent = live.dataset.live; };
    events.onerror = () => { live.textContent = events.readyState === EventSource.CLOSED ? live.dataset.over : live.dataset.lost; };
    events.onmessage = (event) => {
      Object.entries(JSON.parse(event.data)).forEach(([id, text]) => put(id, text));
      if (table) {
        sort();
        filter();
        limit();
      } else if (before === "yes" && first() === "no") location.reload(); // now there is a report
    };
    addEventListener("pagehide", () => events.close());
  }
})();
