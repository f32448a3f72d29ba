// What a page must be for those who see little of it, computed as the browser shows it.
(() => {
  const visible = (element) => element.checkVisibility({ visibilityProperty: true });

  // colours: "rgb(1, 2, 3)", "rgba(1, 2, 3, 0.5)" -> numbers
  const parts = (colour) => colour.match(/[\d.]+/g).map(Number);
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((channel) => {
      const share = channel / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) { return colour; }
      if (colour[3] > 0) { throw new Error("a background that shines through"); }
    }
    return [255, 255, 255];
  };

  const texts = () => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = new Set();
    while (walker.nextNode()) {
      const element = walker.currentNode.parentElement;
      const silent = element.closest("script, style, title, .unseen");
      if (walker.currentNode.data.trim() && !silent && visible(element)) { found.add(element); }
    }
    return [...found];
  };

  return {
    contrasts: () => texts().map((element) => {
      const style = getComputedStyle(element);
      const colour = element.closest("svg") ? style.fill : style.color;
      return [ratio(parts(colour), behind(element)), element.textContent.trim().slice(0, 40)];
    }),
    shapes: () => [
      ["rect.before", "fill"], ["rect.after", "fill"], ["polyline.after", "stroke"],
      ["polyline.second", "stroke"], ["line.chosen", "stroke"], ["line.axis", "stroke"],
      [".meter .fill", "fill"],
    ].map(([selector, property]) => {
      const element = [...document.querySelectorAll(selector)].find(visible);
      return [ratio(parts(getComputedStyle(element)[property]), behind(element)), selector];
    }),
    nameless: () => [...document.querySelectorAll("a, button, input, select, summary, [tabindex]")]
      .filter(visible)
      .filter((element) => {
        const by = (element.getAttribute("aria-labelledby") || "").split(/\s+/).filter(Boolean);
        const name = element.getAttribute("aria-label")
          || by.map((id) => document.getElementById(id).textContent).join(" ")
          || [...(element.labels || [])].map((label) => label.textContent).join(" ")
          || (element.matches("input") ? "" : element.textContent);
        return !name.trim();
      })
      .map((element) => element.outerHTML.slice(0, 80)),
    wide: () => [...document.querySelectorAll("body *")]
      .filter((element) => visible(element) && !element.closest(".scroll, .contents, .skip, .unseen"))
      .filter((element) => element.getBoundingClientRect().right > innerWidth + 0.5)
      .map((element) => element.outerHTML.slice(0, 80)),
    unreachable: () => [...document.querySelectorAll("body *")]
      .filter((element) => visible(element) && element.scrollWidth > element.clientWidth + 1)
      .filter((element) => /auto|scroll/.test(getComputedStyle(element).overflowX))
      .filter((element) => element.tabIndex < 0 && !element.querySelector("a, button"))
      .map((element) => element.outerHTML.slice(0, 80)),
    doubled: () => {
      const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
      return ids.filter((id, at) => ids.indexOf(id) !== at);
    },
    small: () => [...document.querySelectorAll("button, input, summary")]
      .filter(visible)
      .filter((element) => Math.min(element.getBoundingClientRect().height, 24) < 24)
      .map((element) => element.outerHTML.slice(0, 80)),
  };
})()
