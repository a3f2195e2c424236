// What is wider than its column and has to scroll (a table, a matrix) fades where it goes on, says so, and can be reached by Tab. And a
// link to a row that is folded away opens it.
(() => {
  const article = document.querySelector(".bd-article");
  if (!article) return;

  // ---- What scrolls ----
  const KINDS = { TABLE: "Table", PRE: "Code" };
  function tell(box) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    box.classList.toggle("wide", wide);
    const kind = box.matches(".formula") ? "Formula" : (KINDS[box.tagName] ?? (box.querySelector("table") ? "Table" : "Output"));
    const said = { role: "region", "aria-label": `${kind} ${boxes.indexOf(box) + 1}, wider than the page: it scrolls sideways`, tabindex: "0" };
    for (const [name, value] of Object.entries(said)) wide ? box.setAttribute(name, value) : box.removeAttribute(name);
    box.classList.toggle("at-end", wide && box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
  }

  // Whatever changes a width, the window or an answer that is opened, comes by here.
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) tell(target);
  });
  const boxes = [...article.querySelectorAll(".scrolls, .pst-scrollable-table-container, .cell_output, pre, .formula")];
  for (const box of boxes) {
    box.addEventListener("scroll", () => tell(box), { passive: true });
    watch.observe(box);
  }

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
