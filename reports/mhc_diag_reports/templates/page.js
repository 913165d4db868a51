"use strict";
// Values under the pointer. The figures and tables say the same without it.
document.querySelectorAll("g[data-panel]").forEach((panel) => {
  const svg = panel.ownerSVGElement;
  const [left, top, width, height, low, high] = panel.dataset.panel.split(" ").map(Number);
  const lines = [...panel.querySelectorAll("g[data-y]")].map((g) => {
    const y = g.dataset.y.split(" ");
    const x = g.dataset.x ? g.dataset.x.split(" ").map(Number) : y.map((_, i) => i);
    return { label: g.dataset.label, colour: g.getAttribute("fill"), x, y };
  });
  const make = (name, attributes) => {
    const node = document.createElementNS(svg.namespaceURI, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    panel.append(node);
    return node;
  };
  const rule = make("path", { stroke: "currentColor", "stroke-opacity": 0.5, fill: "none" });
  const text = make("text", { x: left + width, y: 12, "text-anchor": "end" });
  const hide = () => { rule.removeAttribute("d"); text.textContent = ""; };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    if (at.x < left || at.x > left + width) return hide();
    const wanted = low + ((at.x - left) / width) * (high - low);
    const all = [...new Set(lines.flatMap((line) => line.x))];
    if (!all.length) return;
    const x = all.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
    const place = left + ((x - low) / (high - low)) * width;
    rule.setAttribute("d", `M${place} ${top}v${height}`);
    text.textContent = `${panel.dataset.axis} ${x}`;
    lines.forEach((line) => {
      const i = line.x.indexOf(x);
      if (i < 0) return;
      const part = document.createElementNS(svg.namespaceURI, "tspan");
      part.setAttribute("fill", line.colour);
      part.setAttribute("font-weight", 600);
      part.textContent = `  ${line.label} ${line.y[i] === "-" ? "not measured" : line.y[i]}`;
      text.append(part);
    });
  });
});
