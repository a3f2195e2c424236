// What is wider than its column. Displayed formulas are broken into lines at their relations, then at sums, products, within brackets;
// what still has to scroll (a table, a matrix) fades where it goes on, says so, and can be reached by Tab. And a link to a row
// that is folded away opens it.
(() => {
  const article = document.querySelector(".bd-article");
  if (!article) return;

  // ---- Formulas ----
  // MathJax has set each in one line of boxes. These are put into groups, and groups into groups: a group goes to the next line as
  // a whole, and only one that is itself wider than the column is broken in turn. So a relation is broken before a sum is.
  const NEXT = 0, RELATION = 1, SUM = 2, PRODUCT = 3, INSIDE = 4, WHOLE = 5;
  const OPEN = ["28", "5B", "7B", "27E8"], CLOSE = ["29", "5D", "7D", "27E9"], STOPS = ["2C", "2E", "3B"], ARROWS = ["21D2", "27F9", "21D4", "27FA"];
  const ALONE = ["mjx-mfrac", "mjx-mrow", "mjx-msqrt", "mjx-mtext", "mjx-munder", "mjx-munderover", "mjx-mtable"];    // what is in these is no bracket of the line
  const character = (box) => (ALONE.includes(box.localName) ? null : box.querySelector("mjx-c")?.className.match(/mjx-c([0-9A-F]+)/)?.[1]);
  const isSign = (box) => box.localName === "mjx-mo" && ![...OPEN, ...CLOSE, ...STOPS].includes(character(box));
  const gap = (box) => (box.localName === "mjx-mstyle" ? parseFloat(box.firstElementChild?.style.width) : NaN);

  // For each box of a line the level at which a new group may begin with it; none where it may not.
  function levels(boxes) {
    let depth = 0, before = null, space = 0;
    return boxes.map((box) => {
      if (!isNaN(gap(box))) { space = Math.max(space, gap(box)); return; }
      const first = character(box), last = before && character(before), signs = [before, box].map((each) => each && isSign(each));
      let level;
      if (CLOSE.includes(first)) depth--;
      if (!before || STOPS.includes(first) || CLOSE.includes(first)) level = undefined;
      else if (space >= 1) level = depth ? INSIDE : NEXT;      // the next formula of a line
      else if (depth) level = (signs[1] && !signs[0]) || last === "2C" ? INSIDE : undefined;
      else if (signs[1]) level = signs[0] ? undefined : ARROWS.includes(first) ? NEXT : { 3: SUM, 4: RELATION }[box.getAttribute("space")];
      else if (!signs[0] && (CLOSE.includes(last) || before.localName === "mjx-mfrac" || (space && box.localName === "mjx-mfrac"))) level = PRODUCT;
      if (OPEN.includes(first)) depth++;
      before = box;
      space = 0;
      return level;
    });
  }

  function group(parent, boxes, places, level) {
    if (level === WHOLE) return parent.append(...boxes);
    const starts = [...boxes.keys()].filter((place) => !place || places[place] === level);
    if (starts.length === 1) return group(parent, boxes, places, level + 1);
    starts.forEach((start, at) => {
      const piece = document.createElement("span");
      piece.className = "piece";
      parent.append(piece);
      group(piece, boxes.slice(start, starts[at + 1]), places.slice(start, starts[at + 1]), level + 1);
    });
  }

  function divide(row) {
    const boxes = [...row.children];
    group(row, boxes, levels(boxes), NEXT);
    for (const box of boxes) if (box.localName === "mjx-mrow" && box.children.length > 3) divide(box);     // between \left( and \right)
  }

  const width = (box) => box?.getBoundingClientRect().width ?? 0;

  // Break the formula where it is wider than `room`. Widths are taken once, while it stands in one line and is not folded away.
  function fit(formula, room) {
    let known = formulas.get(formula);
    if (!known) {
      const math = formula.querySelector("mjx-math");
      let rows = [math], lines = null;
      // `aligned` is a table of lines, and Sphinx puts it into another one of a single cell.
      while (rows.length === 1 && rows[0].firstElementChild?.localName === "mjx-mtable") {
        lines = rows[0].firstElementChild;
        lines.classList.add("lines");
        rows = [...lines.querySelector("mjx-itable").querySelectorAll(":scope > mjx-mtr > mjx-mtd")];
      }
      rows.forEach(divide);
      const pieces = [...formula.querySelectorAll(".piece, mjx-mrow:has(> .piece)")].map((piece) => [piece, width(piece)]);
      formulas.set(formula, (known = { whole: Math.max(width(math), width(lines)), pieces }));
    }
    const wide = known.whole > room + 0.5, indent = 1.6 * parseFloat(getComputedStyle(formula).fontSize);
    formula.classList.toggle("broken", wide);
    for (const [piece, own] of known.pieces) piece.classList.toggle("flows", wide && own > room - indent);
  }
  const formulas = new Map();

  // ---- What scrolls ----
  const KINDS = { TABLE: "Table", "MJX-CONTAINER": "Formula", PRE: "Code" };
  function tell(box) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    if (!wide && box.localName === "mjx-container" && !box.matches(".wide")) return;      // its tab stop is MathJax's affair
    box.classList.toggle("wide", wide);
    const kind = KINDS[box.tagName] ?? (box.querySelector("table") ? "Table" : "Output");
    const said = { role: "region", "aria-label": `${kind} ${boxes.indexOf(box) + 1}, wider than the page: it scrolls sideways`, tabindex: "0" };
    for (const [name, value] of Object.entries(said)) wide ? box.setAttribute(name, value) : box.removeAttribute(name);
    box.classList.toggle("at-end", wide && box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
  }

  // Whatever changes a width, the window or an answer that is opened, comes by here.
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries) if (target.localName === "mjx-container" && target.clientWidth) fit(target, target.clientWidth);
    for (const { target } of entries) tell(target);
  });
  const boxes = [];
  function begin() {
    boxes.push(...article.querySelectorAll('.scrolls, .pst-scrollable-table-container, .cell_output, pre, mjx-container[display="true"]'));
    for (const box of boxes) {
      box.addEventListener("scroll", () => tell(box), { passive: true });
      watch.observe(box);
    }
  }
  addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(begin));
  addEventListener("beforeprint", () => { for (const formula of formulas.keys()) fit(formula, 600); });      // a sheet is about as wide
  addEventListener("afterprint", () => { for (const formula of formulas.keys()) fit(formula, formula.clientWidth); });

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
