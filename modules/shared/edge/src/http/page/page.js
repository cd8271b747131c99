(() => {
  const lost = document.getElementById("lost");
  // Takes over what differs and nothing else: focus, selection and what is folded open stay.
  const take = (from, to) => {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.id !== to.id) {
      from.replaceWith(to);
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value && name !== "hidden") from.setAttribute(name, value);
    }
    const olds = [...from.childNodes], news = [...to.childNodes];
    news.forEach((node, index) => (olds[index] ? take(olds[index], node) : from.append(node)));
    olds.slice(news.length).forEach((node) => node.remove());
  };
  const show = () => document.querySelectorAll(".copy[hidden]").forEach((button) => { button.hidden = false; });
  const look = async () => {
    try {
      const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (!answer.ok) throw new Error(String(answer.status));
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      take(document.querySelector("main"), page.querySelector("main"));
      lost.hidden = true;
      show();
    } catch {
      if (lost.hidden) {
        lost.textContent = `The module does not answer since ${new Date().toLocaleTimeString()}; what is shown is older.`;
        lost.hidden = false;
      }
    }
  };
  show();
  const again = async () => {
    if (!document.hidden) await look();
    setTimeout(again, 2000);
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(); });
  setTimeout(again, 2000);
})();
