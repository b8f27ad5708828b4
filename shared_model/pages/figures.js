// Draws the figures of a page when they come near the screen, in the colours of its theme, and saves figures and tables.
(() => {
  "use strict";
  const NEAR = "600px 0px";
  const NARROW = 420; // pixels
  const LONGEST_NAME = 16;
  const PRINT_WIDTH = { alone: 660, inGrid: 320 };
  const PRINT_HEIGHT = { part: 0.8, least: 190 };
  const figures = JSON.parse(document.getElementById("figure-data").textContent);
  const holders = [...document.querySelectorAll("[data-figure]")];
  const root = document.documentElement;
  const drawn = new Set();

  // var(--name) in a figure is a colour of the theme.
  const coloured = (value, style) => {
    if (typeof value === "string") {
      return value.startsWith("var(--") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((part) => coloured(part, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, coloured(part, style)]));
  };

  // A long name goes on in a second line; what is longer still is cut there, and the table has it whole.
  const inTwoLines = (name) => {
    const characters = name.match(/&#?\w+;|[^]/gu) ?? [];
    if (characters.length <= LONGEST_NAME || name.includes("\u2068")) return name;
    const space = characters.lastIndexOf(" ", LONGEST_NAME);
    const [end, next] = space > 0 ? [space, space + 1] : [LONGEST_NAME, LONGEST_NAME];
    const rest = characters.slice(next);
    const second = rest.length > LONGEST_NAME ? [...rest.slice(0, LONGEST_NAME - 1), "…"] : rest;
    return `${characters.slice(0, end).join("")}<br>${second.join("")}`;
  };

  // Where there is little room: smaller letters, names in two lines, fewer ticks, no colour bar.
  const fitted = (layout) => {
    const names = layout.yaxis.ticktext ? { ticktext: layout.yaxis.ticktext.map(inTwoLines) } : {};
    const ticks = layout.xaxis.tickvals ? {} : { nticks: 4 };
    return {
      ...layout,
      font: { ...layout.font, size: 11 },
      margin: { ...layout.margin, r: 8 },
      xaxis: { ...layout.xaxis, ...ticks },
      yaxis: { ...layout.yaxis, ...names },
    };
  };

  const withoutColourBar = (trace) => (trace.marker?.showscale ? { ...trace, marker: { ...trace.marker, showscale: false } } : trace);

  const draw = (holder, width) => {
    const figure = figures[holder.dataset.figure];
    const isNarrow = (width ?? holder.clientWidth) < NARROW;
    const data = isNarrow ? figure.data.map(withoutColourBar) : figure.data;
    const layout = isNarrow ? fitted(figure.layout) : figure.layout;
    const height = width ? Math.max(PRINT_HEIGHT.least, figure.height * PRINT_HEIGHT.part) : figure.height;
    const style = getComputedStyle(root);
    const size = width ? { width, height, autosize: false } : { height, autosize: true };
    holder.querySelector(".waiting")?.remove();
    holder.style.minHeight = `${height}px`;
    drawn.add(holder);
    const hover = { bgcolor: "var(--surface)", bordercolor: "var(--gray)", font: { color: "var(--ink)" } };
    return Plotly.react(holder, coloured(data, style), coloured({ ...layout, hoverlabel: hover, ...size }, style), {
      displayModeBar: false,
      responsive: !width,
    });
  };

  const isOpen = (element) => !element.closest("details:not([open])");

  // The page's policy names the hash of the unpacked text, and lets no other run.
  const unpack = async (packed) => {
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const text = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(text).text();
    document.head.append(script);
  };

  const begin = () => {
    const near = new IntersectionObserver(
      (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
        near.unobserve(entry.target);
        draw(entry.target);
      }),
      { rootMargin: NEAR },
    );
    holders.forEach((holder) => near.observe(holder));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach((holder) => draw(holder)));
    addEventListener("beforeprint", () => {
      root.dataset.printing = "";
      holders.filter(isOpen).forEach((holder) => {
        near.unobserve(holder);
        draw(holder, holder.closest(".grid") ? PRINT_WIDTH.inGrid : PRINT_WIDTH.alone);
      });
    });
    addEventListener("afterprint", () => {
      delete root.dataset.printing;
      drawn.forEach((holder) => draw(holder));
    });
    document.querySelectorAll("figure > .actions").forEach((actions) => { actions.hidden = false; });
    root.dataset.figures = "ready";
  };

  // The page does not move under a reader's pointer when a figure above is drawn.
  holders.forEach((holder) => { holder.style.minHeight = `${figures[holder.dataset.figure].height}px`; });

  const packed = document.getElementById("plotly").textContent;
  if (packed) requestAnimationFrame(() => setTimeout(() => unpack(packed).then(begin)));

  const save = (name, content, type) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };

  // A text that a spreadsheet would take for a formula is marked as text; numbers stay numbers.
  const csvCell = (text) => {
    const plain = /^[=+\-@\t\r]/.test(text) && !/^[+-]?[\d.]+(e[+-]?\d+)?%?$/i.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };

  const saveTable = (table) => {
    const cellText = (cell) => {
      const copy = cell.cloneNode(true);
      copy.querySelectorAll("[aria-hidden]").forEach((symbol) => symbol.remove());
      return copy.textContent.trim();
    };
    const lines = [...table.rows].map((row) => [...row.cells].map((cell) => csvCell(cellText(cell))).join(","));
    save(`${table.dataset.name}.csv`, `\ufeff${lines.join("\r\n")}\r\n`, "text/csv;charset=utf-8");
  };

  const saveFigure = async (holder, format) => {
    if (!drawn.has(holder)) await draw(holder);
    const { data, layout, height } = figures[holder.dataset.figure];
    const style = getComputedStyle(root);
    const picture = {
      data: coloured(data, style),
      layout: coloured({ ...layout, paper_bgcolor: "var(--surface)", autosize: false }, style),
    };
    const size = { width: 900, height: Math.max(height, 420), scale: format === "png" ? 2 : 1 };
    // Plotly.downloadImage takes its file back at once, before a busy browser has begun to save it.
    const [head, body] = (await Plotly.toImage(picture, { format, ...size })).split(/,(.*)/s);
    const content = head.endsWith("base64") ? Uint8Array.from(atob(body), (byte) => byte.charCodeAt(0)) : decodeURIComponent(body);
    save(`${holder.dataset.figure}.${format}`, content, head.slice("data:".length).replace(";base64", ""));
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-save]");
    if (!button) return;
    if (button.dataset.save === "csv") saveTable(button.closest(".table-part").querySelector("table"));
    else saveFigure(button.closest("figure").querySelector("[data-figure]"), button.dataset.save);
  });

  document.querySelectorAll(".table-part > .actions").forEach((actions) => { actions.hidden = false; });

  // A page whose numbers change gives a figure anew.
  document.addEventListener("figure", ({ detail }) => {
    figures[detail.name] = detail;
    holders.filter((holder) => holder.dataset.figure === detail.name && drawn.has(holder)).forEach((holder) => draw(holder));
  });
})();
