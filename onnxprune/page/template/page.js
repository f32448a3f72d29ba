
"use strict";
(() => {
  const root = document.documentElement;
  const every = (selector, inside = document) => [...inside.querySelectorAll(selector)];

  // colours: those of the system until the button says otherwise, and only on this page
  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const sayTheme = () => { theme.textContent = isDark() ? "Light colours" : "Dark colours"; };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    sayTheme();
  });
  system.addEventListener("change", sayTheme);
  sayTheme();
  theme.hidden = false;

  // what a link points to is shown, with the details around it, which not all browsers open
  const reveal = () => {
    const found = location.hash && document.getElementById(location.hash.slice(1));
    const around = found && found.closest("details");
    if (around) {
      around.open = true;
      around.scrollIntoView();
      around.querySelector("summary").focus({ preventScroll: true });
    }
  };
  addEventListener("hashchange", reveal);
  every("#group-rows a").forEach((link) => {
    link.addEventListener("click", () => { if (link.hash === location.hash) { reveal(); } });
  });
  reveal();

  const rows = document.getElementById("group-rows");
  if (!rows) { return; }
  const details = document.getElementById("group-details");
  const groups = every("tr", rows).map((row) => ({
    row,
    detail: details.querySelector(`details[data-group="${row.dataset.group}"]`),
  }));

  // sorting: what has no value comes last in either direction
  const compare = (column, numeric, sign) => (one, other) => {
    const [a, b] = [one, other].map((group) => group.row.cells[column].dataset.value);
    if (a === "" || b === "") { return (a === "") - (b === ""); }
    return sign * (numeric ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  const heads = every("#group-table thead th");
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sortable";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const first = numeric && column > 0 ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      groups.sort(compare(column, numeric, order === "ascending" ? 1 : -1));
      rows.append(...groups.map((group) => group.row));
      details.append(...groups.map((group) => group.detail));
    });
  });

  // filtering: by the names of a group, and of the layers that make and read it
  const filter = document.getElementById("filter");
  const filtered = document.getElementById("filtered");
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    groups.forEach(({ row, detail }) => {
      const fits = words.every((word) => row.dataset.words.includes(word));
      row.hidden = detail.hidden = !fits;
      shown += fits;
    });
    filtered.textContent = words.length ? `${shown} of ${groups.length} shown` : "";
  };
  filter.addEventListener("input", apply);

  const unfold = document.getElementById("unfold");
  const sayUnfold = () => {
    const all = groups.every(({ detail }) => detail.open);
    unfold.textContent = all ? "Close all details" : "Open all details";
    return all;
  };
  unfold.addEventListener("click", () => {
    const open = !sayUnfold();
    groups.forEach(({ detail }) => { detail.open = open; });
  });
  details.addEventListener("toggle", sayUnfold, true);

  every(".tools").forEach((tools) => { tools.hidden = false; });
})();
