"use strict";
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  document.body.append(tip);
  const row = (text, colour) => {
    const line = document.createElement("div");
    if (colour) {
      const swatch = document.createElement("span");
      swatch.className = "swatch " + colour;
      line.append(swatch);
    }
    line.append(text);
    return line;
  };
  const hide = (cursor) => { tip.style.display = "none"; cursor.style.opacity = 0; };
  for (const svg of document.querySelectorAll("svg[data-points]")) {
    const data = JSON.parse(svg.dataset.points);
    const cursor = svg.querySelector(".cursor");
    const area = svg.querySelector(".hover");
    if (!data.rows.length) continue;
    area.addEventListener("pointermove", (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
      const near = data.rows.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
      cursor.setAttribute("x1", near[0]);
      cursor.setAttribute("x2", near[0]);
      cursor.style.opacity = 1;
      const lines = Object.keys(data.names).filter((name) => name in near[2]);
      tip.replaceChildren(row(data.x + " " + near[1]), ...lines.map((n) => row(n + "  " + near[2][n], data.names[n])));
      tip.style.display = "block";
      const box = tip.getBoundingClientRect();
      tip.style.left = Math.min(event.clientX + 14, innerWidth - box.width - 8) + "px";
      tip.style.top = Math.max(event.clientY - box.height - 12, 8) + "px";
    });
    area.addEventListener("pointerleave", () => hide(cursor));
  }
})();
