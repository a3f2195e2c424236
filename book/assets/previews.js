// What stands at the other end of a link to an equation, a figure, a reference or a term, for the box of symbols.js. From another page
// it lies at the end of this one, in a template (book/extensions/ewc_previews.py); of this page it is the thing itself.
window.previewOf = (() => {
  const brought = new Map([...document.querySelectorAll("template.preview")].map((each) => [each.dataset.for, each.content]));
  const here = (link) => (link.getAttribute("href").startsWith("#") ? document.getElementById(decodeURIComponent(link.hash.slice(1))) : null);

  function seen(target) {
    const piece = document.createDocumentFragment(), number = target.querySelector(":scope > .eqno")?.firstChild.textContent;
    const part = target.querySelector(target.matches("figure") ? "figcaption" : ":scope > .formula");
    if (!part) return null;
    if (number) piece.append(Object.assign(document.createElement("p"), { className: "name", textContent: `Equation ${number}` }));
    piece.append(part.cloneNode(true));
    piece.querySelectorAll(".headerlink").forEach((each) => each.remove());
    for (const each of piece.querySelectorAll("[id], [tabindex], [role]")) for (const name of ["id", "tabindex", "role", "aria-label"]) each.removeAttribute(name);
    return piece;
  }

  const shown = (link) => brought.get(link.getAttribute("href"))?.cloneNode(true) ?? (here(link)?.matches("div.math, figure") ? seen(here(link)) : null);
  for (const link of document.querySelectorAll(".bd-article a.internal:not(.headerlink)")) if (shown(link)) link.classList.add("previewed");
  return shown;
})();
