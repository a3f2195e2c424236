// What is wider than its column. Displayed formulas are broken into lines at their relations, then at sums, then within brackets;
// what still has to scroll (a table, a matrix) fades where it goes on, says so, and can be reached by Tab. And a link to a row
// that is folded away opens it.
(() => {
  const article = document.querySelector(".bd-article");
  if (!article) return;

  // ---- Formulas ----
  // MathJax has set each in one line of boxes. These are put into groups, and groups into groups: a group goes to the next line as
  // a whole, and is itself broken only where it alone is wider than the column. So a relation is broken before a sum is.
  const RELATION = 0, SUM = 1, INSIDE = 2, WHOLE = 3;
  const OPEN = ["28", "5B", "7B", "27E8"], CLOSE = ["29", "5D", "7D", "27E9"];
  const character = (box) => box.querySelector("mjx-c")?.className.match(/mjx-c([0-9A-F]+)/)?.[1];
  const isSign = (box) => box?.localName === "mjx-mo" && ["3", "4"].includes(box.getAttribute("space"));
  const isGap = (box) => box?.localName === "mjx-mstyle" && parseFloat(box.firstElementChild?.style.width) >= 1;

  // For each box of a line, where among the groups it may begin a new one; undefined where it may not.
  function breaks(boxes) {
    let depth = 0;
    return boxes.map((box, place) => {
      const before = boxes[place - 1], ofBrackets = !["mjx-mfrac", "mjx-mrow", "mjx-msqrt", "mjx-mtext"].includes(box.localName);
      const first = ofBrackets && character(box);
      if (CLOSE.includes(first)) depth--;
      const inside = depth > 0;
      if (OPEN.includes(first)) depth++;
      if (!before || isGap(box)) return undefined;
      if (isGap(before)) return inside ? INSIDE : RELATION;
      if (inside) return (isSign(box) && !isSign(before)) || character(before) === "2C" ? INSIDE : undefined;
      if (!isSign(box) || isSign(before)) return undefined;
      return box.getAttribute("space") === "4" ? RELATION : SUM;
    });
  }

  function group(parent, boxes, levels, level) {
    if (level === WHOLE) return parent.append(...boxes);
    const starts = [0, ...boxes.keys()].filter((place) => !place || levels[place] === level);
    const unique = [...new Set(starts)];
    if (unique.length === 1) return group(parent, boxes, levels, level + 1);
    unique.forEach((start, at) => {
      const piece = document.createElement("span"), end = unique[at + 1] ?? boxes.length;
      piece.className = "piece";
      parent.append(piece);
      group(piece, boxes.slice(start, end), levels.slice(start, end), level + 1);
    });
  }

  function divide(row) {
    const boxes = [...row.children];
    group(row, boxes, breaks(boxes), RELATION);
    for (const box of boxes) if (box.localName === "mjx-mrow" && box.children.length > 3) divide(box);     // between \left( and \right)
  }

  function prepare(formula) {
    const math = formula.querySelector("mjx-math"), lines = math.querySelector(":scope > mjx-mtable mjx-itable");
    if (lines) for (const cell of lines.querySelectorAll(":scope > mjx-mtr > mjx-mtd")) divide(cell);
    else divide(math);
    return { formula, width: math.getBoundingClientRect().width };
  }

  const formulas = new Map(), scrolling = new Set();
  const broken = ({ formula, width }, room) => formula.classList.toggle("broken", width > room + 0.5);

  // ---- What scrolls ----
  const KINDS = { TABLE: "Table", "MJX-CONTAINER": "Formula", PRE: "Code" };
  function tell(box) {
    const wide = box.scrollWidth > box.clientWidth + 1;
    if (wide !== box.classList.contains("wide")) {
      box.classList.toggle("wide", wide);
      const kind = KINDS[box.tagName] ?? (box.querySelector("table") ? "Table" : "Output");
      const said = { role: "region", "aria-label": `${kind}, wider than the page: it scrolls sideways`, tabindex: "0" };
      for (const [name, value] of Object.entries(said)) wide ? box.setAttribute(name, value) : box.removeAttribute(name);
    }
    box.classList.toggle("at-end", wide && box.scrollLeft + box.clientWidth >= box.scrollWidth - 2);
  }

  // Whatever changes a width, the window or an answer that is opened, comes by here.
  const watch = new ResizeObserver((entries) => {
    for (const { target } of entries)
      if (formulas.has(target) && target.clientWidth) {
        const known = formulas.get(target);
        if (!known.width) formulas.set(target, { ...known, width: target.querySelector("mjx-math").getBoundingClientRect().width });
        broken(formulas.get(target), target.clientWidth);
      }
    for (const { target } of entries) tell(target);
  });
  function begin() {
    for (const formula of article.querySelectorAll('mjx-container[display="true"]')) formulas.set(formula, prepare(formula));
    const boxes = article.querySelectorAll(".scrolls, .pst-scrollable-table-container, .cell_output, pre");
    for (const box of [...formulas.keys(), ...boxes]) {
      scrolling.add(box);
      box.addEventListener("scroll", () => tell(box), { passive: true });
      watch.observe(box);
    }
  }
  addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(begin));
  addEventListener("beforeprint", () => formulas.forEach((known) => broken(known, 600)));      // a sheet is about as wide
  addEventListener("afterprint", () => formulas.forEach((known, formula) => broken(known, formula.clientWidth)));

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
