// Formulas are written as TeX in the pages; arithmatex marks them, KaTeX draws them.
for (const element of document.querySelectorAll(".arithmatex")) {
  const marked = element.textContent.trim();
  katex.render(marked.slice(2, -2), element, {displayMode: marked.startsWith("\\["), throwOnError: false});
}
