// What is wider than its column and has to scroll (a table, a matrix) fades where it goes on, says so, and can be reached by Tab. And a
// link to a row that is folded away opens it.
(() => {
  const article = document.querySelector(".bd-article");
  if (!article) return;

  // ---- What scrolls ----
  const KINDS = { TABLE: "Table", PRE: "Code" };
  const measured = (box) => ({ box, wide: box.scrollWidth > box.clientWidth + 1, end: box.scrollLeft + box.clientWidth >= box.scrollWidth - 1 });
  function tell({ box, wide, end }) {
    // Tab came to it before it was drawn: the focus is not taken from it.
    if (!wide && box === document.activeElement) return box.addEventListener("blur", () => tell(measured(box)), { once: true });
    box.classList.toggle("wide", wide);
    const kind = box.matches(".formula") ? "Formula" : (KINDS[box.tagName] ?? (box.querySelector("table") ? "Table" : "Output"));
    const said = { role: "region", "aria-label": `${kind} ${boxes.indexOf(box) + 1}, wider than the page: it scrolls sideways`, tabindex: "0" };
    for (const [name, value] of Object.entries(said)) wide ? box.setAttribute(name, value) : box.removeAttribute(name);
    box.classList.toggle("at-end", wide && end);
  }

  // Whatever changes a width, the window or an answer that is opened, comes by here, and a section when it is first drawn. All are
  // measured before one is changed, for a change has the page laid out anew.
  const watch = new ResizeObserver((entries) => entries.map(({ target }) => measured(target)).forEach(tell));
  const boxes = [...article.querySelectorAll(".scrolls, .pst-scrollable-table-container, .cell_output, pre, .formula")];
  for (const box of boxes) {
    box.addEventListener("scroll", () => tell(measured(box)), { passive: true });
    watch.observe(box);
  }

  // ---- Sections that are laid out late (book.css) ----
  // Who comes back is taken to the same distance from the top, so each section has the height that it had then.
  const sections = [...article.querySelectorAll(":scope > section > section")], kept = `heights of ${location.pathname}`;
  const heights = JSON.parse(sessionStorage.getItem(kept) ?? "[]");
  sections.forEach((section, at) => { if (heights[at]) section.style.containIntrinsicBlockSize = `auto ${heights[at]}px`; });
  addEventListener("pagehide", () => sessionStorage.setItem(kept, JSON.stringify(sections.map((section) => section.clientHeight))));

  // ---- A row that is folded away ----
  function unfold() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1))), fold = target?.closest("details:not([open])");
    if (!fold) return;
    fold.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", unfold);
  unfold();
})();
